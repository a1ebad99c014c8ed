// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"

	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/plugins/backend"
)

// Decide picks from the packages of a transaction the newest kernel that is newer
// than the running one and of its flavour; ok is false if there is none. A new
// ABI package is a new package to the package manager, and an update to us.
func (p *Pipeline) Decide(ctx context.Context, packages []backend.Package, trigger journal.Trigger) (u journal.Update, ok bool, err error) {
	b, err := p.Open(ctx)
	if err != nil {
		return u, false, err
	}
	defer b.Close()
	kernels, err := b.Kernels(ctx, packages)
	if err != nil || len(kernels) == 0 {
		return u, false, err
	}
	running, err := b.Installed(ctx, p.Kernel.Release())
	if err != nil {
		return u, false, err
	}
	to, ok, err := newest(ctx, b, running, kernels)
	if err != nil || !ok {
		return u, false, err
	}
	return update(running, to, trigger), true, nil
}

// Landed is Decide for a kernel that came without a transaction: release has
// appeared in /boot.
func (p *Pipeline) Landed(ctx context.Context, release string) (u journal.Update, ok bool, err error) {
	b, err := p.Open(ctx)
	if err != nil {
		return u, false, err
	}
	defer b.Close()
	running, err := b.Installed(ctx, p.Kernel.Release())
	if err != nil {
		return u, false, err
	}
	landed, err := b.Installed(ctx, release)
	if err != nil {
		return u, false, err
	}
	to, ok, err := newest(ctx, b, running, []backend.Kernel{landed})
	if err != nil || !ok {
		return u, false, err
	}
	return update(running, to, journal.TriggerWatch), true, nil
}

// newest returns the newest of kernels that is of running's flavour and newer.
func newest(ctx context.Context, b Backend, running backend.Kernel, kernels []backend.Kernel) (backend.Kernel, bool, error) {
	best, found := running, false
	for _, k := range kernels {
		if k.Flavour != running.Flavour || k.Arch != running.Arch {
			continue
		}
		c, err := b.Compare(ctx, best, k)
		if err != nil {
			return best, false, err
		}
		if c < 0 {
			best, found = k, true
		}
	}
	return best, found, nil
}

func update(from, to backend.Kernel, trigger journal.Trigger) journal.Update {
	return journal.Update{
		From: journalKernel(from), To: journalKernel(to),
		Flavour: from.Flavour, Arch: from.Arch, Trigger: trigger,
	}
}

func journalKernel(k backend.Kernel) journal.Kernel {
	return journal.Kernel{Release: k.Release, Version: k.SourceVersion, Package: k.Package, Path: k.Path}
}
