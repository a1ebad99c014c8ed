// SPDX-License-Identifier: Apache-2.0

// Package live is the running kernel as the pipeline sees it: it joins the probes,
// the check of live memory and the livepatch interface of kmod with what a splice
// says.
package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/kmod/identity"
	"github.com/upsplice/upsplice/kmod/livepatch"
	"github.com/upsplice/upsplice/kmod/modsign"
	"github.com/upsplice/upsplice/kmod/probe"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// ModulePrefix is how the names of our livepatch modules begin.
const ModulePrefix = "upsplice_"

// Kernel is the running kernel.
type Kernel struct {
	Root     fs.FS // what probes read: proc, sys, boot
	Patches  *livepatch.System
	Deadline time.Duration // of a transition
	SignKey  string        // a key to sign modules with, and its certificate; "": do not sign
	SignCert string
}

// Host is the kernel of this machine.
func Host(deadline time.Duration) *Kernel {
	return &Kernel{Root: os.DirFS("/"), Patches: livepatch.Host(), Deadline: deadline}
}

// Release is what uname -r prints.
func (k *Kernel) Release() string {
	b, err := fs.ReadFile(k.Root, "proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Ready refuses kernels that cannot take a splice, and those that do not let that
// be known.
func (k *Kernel) Ready() error {
	p := probe.Run(k.Root)
	modules := p.UnsignedModule
	if k.SignKey != "" {
		if _, err := k.signer(); err != nil {
			return err
		}
		modules = p.SignedModule
	}
	for _, c := range []struct {
		check string
		f     probe.Finding
	}{{"livepatch", p.Livepatch}, {"module signatures", modules}} {
		if c.f.Answer == probe.Yes {
			continue
		}
		return &outcome.Error{Outcome: outcome.Refused, Check: c.check,
			What: "probing the kernel " + p.Release, Err: errors.New(c.f.Detail), Remedy: c.f.Remedy}
	}
	return nil
}

// signer loads the configured key; it is never nil without an error.
func (k *Kernel) signer() (*modsign.Signer, error) {
	s, err := modsign.Load(k.SignKey, k.SignCert)
	if err != nil {
		return nil, &outcome.Error{Outcome: outcome.Refused, Check: "signing key", What: "loading sign_key and sign_cert", Err: err}
	}
	return s, nil
}

// Check compares the running kernel with what f expects: release and build id
// first, then, where memory is readable, the bytes of every function concerned.
func (k *Kernel) Check(f *splicefile.File) error {
	m := f.Manifest
	refuse := func(check, what string, err error) error {
		return &outcome.Error{Outcome: outcome.Refused, Check: check, What: what, Err: err}
	}
	if r := k.Release(); m.From.Release != r {
		return refuse("release", "comparing the splice with the running kernel",
			fmt.Errorf("it is for %s, and %s runs", m.From.Release, r))
	}
	id, err := identity.Kernel(k.Root)
	if err != nil {
		return refuse("build id", "reading the build id of the running kernel", err)
	}
	if m.From.BuildID != id {
		return refuse("build id", "comparing the splice with the running kernel",
			fmt.Errorf("it is for the build %s, and %s runs", m.From.BuildID, id))
	}
	others, err := k.Patches.List()
	if err != nil {
		return refuse("livepatches", "listing livepatches", err)
	}
	for _, o := range others {
		// One of its own is where a killed run stopped, and Apply goes on from there.
		own := slices.ContainsFunc(m.Modules, func(mod splicefile.Module) bool { return mod.Name == livepatch.Base(o.Name) })
		if o.Transition && !own {
			return refuse("livepatches", "looking for other livepatches", fmt.Errorf("%s is in transition", o.Name))
		}
		// A replacing livepatch would take a stranger's with it.
		if o.Enabled && !strings.HasPrefix(o.Name, ModulePrefix) {
			return refuse("livepatches", "looking for other livepatches",
				fmt.Errorf("%s, which is not ours, is in force and would be replaced", o.Name))
		}
	}
	if err := k.targets(m); err != nil {
		return refuse("build id", "comparing the splice with the modules that are loaded", err)
	}
	if err := k.memory(m); err != nil {
		return refuse("live memory", "comparing live memory with the shipped image", err)
	}
	return nil
}

// Apply loads the modules of f one after the other. If one fails, those before it
// are taken back: all or nothing.
func (k *Kernel) Apply(ctx context.Context, f *splicefile.File, sink progress.Sink) error {
	patches := *k.Patches
	if k.SignKey != "" {
		s, err := k.signer()
		if err != nil {
			return err
		}
		patches.Sign = s.Sign
	}
	for i, mod := range f.Manifest.Modules {
		err := patches.Apply(ctx, mod.Name, f.Payload[mod.Name], k.Deadline, k.ticker(mod.Name, sink))
		if err == nil {
			err = k.verify(mod.Name, f.Manifest)
		}
		if err == nil {
			continue
		}
		undoCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*k.Deadline)
		defer cancel()
		for j := i; j >= 0; j-- {
			err = errors.Join(err, k.Patches.Undo(undoCtx, f.Manifest.Modules[j].Name, k.Deadline, nil))
		}
		return applyError(mod.Name, err)
	}
	return nil
}

func applyError(module string, err error) error {
	var refused *livepatch.RefusedError
	if errors.As(err, &refused) {
		remedy := ""
		if refused.Reason == livepatch.Signature {
			remedy = probe.EnrolKey
		}
		return &outcome.Error{Outcome: outcome.Refused, Check: "loading", What: "loading " + module, Err: err, Remedy: remedy}
	}
	var stalled *livepatch.StalledError
	if errors.As(err, &stalled) {
		return &outcome.Error{Outcome: outcome.Refused, Check: "transition", What: "switching all tasks to the new code", Err: err}
	}
	return &outcome.Error{Outcome: outcome.Failed, What: "applying " + module, Err: err}
}

// verify asks the kernel whether each function of the splice is redirected, in the
// object that it is in. Those of modules that are not loaded will be when they are.
func (k *Kernel) verify(module string, m splicefile.Manifest) error {
	there, err := k.Patches.Instance(module)
	if err != nil {
		return err
	}
	for _, fn := range m.Functions {
		if fn.Kind != "changed" {
			continue
		}
		object := cmp.Or(fn.Object, vmlinux)
		if object != vmlinux && !k.loaded(object) {
			continue
		}
		dir := "sys/kernel/livepatch/" + there + "/" + object
		if _, err := fs.Stat(k.Root, fmt.Sprintf("%s/%s,%d", dir, fn.Name, max(fn.Sympos, 1))); err != nil {
			return fmt.Errorf("verifying that %s of %s is redirected: %w", fn.Name, object, err)
		}
		// Kernels before 6.1 do not have the file. A module may have gone meanwhile.
		if b, err := fs.ReadFile(k.Root, dir+"/patched"); err == nil && strings.TrimSpace(string(b)) != "1" && (object == vmlinux || k.loaded(object)) {
			return fmt.Errorf("verifying that %s is redirected: the kernel says that %s is not patched", fn.Name, object)
		}
	}
	return nil
}

// loaded says whether a module is there: its livepatch comes before it is live, and
// goes after it has ceased to be.
func (k *Kernel) loaded(module string) bool {
	state, err := fs.ReadFile(k.Root, "sys/module/"+module+"/initstate")
	return err == nil && strings.TrimSpace(string(state)) == "live"
}

// Undo takes the modules of f out.
func (k *Kernel) Undo(ctx context.Context, f *splicefile.File, sink progress.Sink) error {
	for i := len(f.Manifest.Modules) - 1; i >= 0; i-- {
		name := f.Manifest.Modules[i].Name
		if err := k.Patches.Undo(ctx, name, k.Deadline, k.ticker(name, sink)); err != nil {
			return applyError(name, err)
		}
	}
	return nil
}

// IsLive tells whether all modules of f are enabled and in no transition.
func (k *Kernel) IsLive(f *splicefile.File) (bool, error) {
	states, err := k.Patches.List()
	if err != nil {
		return false, err
	}
	on := map[string]bool{}
	for _, s := range states {
		on[livepatch.Base(s.Name)] = s.Enabled && !s.Transition
	}
	for _, mod := range f.Manifest.Modules {
		if !on[mod.Name] {
			return false, nil
		}
	}
	return true, nil
}

// Holds tells whether a module of f is in force, or on its way in or out.
func (k *Kernel) Holds(f *splicefile.File) (bool, error) {
	for _, mod := range f.Manifest.Modules {
		there, err := k.Patches.Instance(mod.Name)
		if err != nil || there != "" {
			return there != "", err
		}
	}
	return false, nil
}

// Reap removes modules of ours that have been replaced.
func (k *Kernel) Reap() error { return k.Patches.Reap(ModulePrefix) }

// slow is how long a transition may take before it is said what it waits for.
const slow = 4 * time.Second

// ticker shows how many tasks have still to switch, and names them if they take
// long.
func (k *Kernel) ticker(module string, sink progress.Sink) func(int) {
	if sink == nil {
		return nil
	}
	first, named := 0, false
	start := time.Now()
	return func(tasks int) {
		first = max(first, tasks)
		sink.Emit(progress.Event{Kind: progress.Tick, Stage: "apply", Text: "switching tasks",
			Done: int64(first - tasks), Total: int64(first), Unit: "tasks"})
		if named || tasks == 0 || time.Since(start) < slow {
			return
		}
		if blockers, err := k.Patches.Blockers(module); err == nil && len(blockers) > 0 {
			named = true
			sink.Emit(progress.Event{Kind: progress.Note, Text: "the switch waits for " + taskNames(blockers)})
		}
	}
}

// taskNames names the first few tasks of a list for people.
func taskNames(blockers []livepatch.Blocker) string {
	var names []string
	for i, b := range blockers {
		if i == 3 {
			names = append(names, fmt.Sprintf("%d more", len(blockers)-i))
			break
		}
		name := fmt.Sprintf("%s (%d)", b.Comm, b.PID)
		if len(b.Stack) > 0 {
			name += " in " + b.Stack[0]
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
