// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/distro/debversion"
	"github.com/upsplice/upsplice/hook/rig"
	"github.com/upsplice/upsplice/kmod/cfiles"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Kernel returns the newest kernel of a series and flavour that the archive has
// everything of.
func Kernel(ctx context.Context, series, flavour string) (lab.Kernel, error) {
	all, err := lab.ListFlavour(ctx, flavour)
	if err != nil {
		return lab.Kernel{}, err
	}
	for _, k := range slices.Backward(all) {
		if k.Series == series && k.HasHeaders && k.HasSource {
			return k, lab.Fetch(ctx, &k)
		}
	}
	return lab.Kernel{}, &lab.ArchiveError{What: fmt.Sprintf("%s kernels of %s", flavour, series), Remedy: "the corpus has changes of this series: add its archive to the sources of apt"}
}

// Maker makes splices for one kernel.
type Maker struct {
	Kernel lab.Kernel
	Cache  string // directory of the engine, kept between changes
}

// Made is what became of a change.
type Made struct {
	Reverse bool             // the kernel has the change: it was taken out
	File    *splicefile.File // nil if nothing goes live
	Groups  []splicefile.Group
	Notes   []string
}

// Verdict is Live, Refused with the codes of the reasons, or Unchanged.
func (m Made) Verdict() (verdict string, codes []string) {
	if m.File != nil {
		return Live, nil
	}
	for _, g := range m.Groups {
		for _, r := range g.Reasons {
			if !slices.Contains(codes, r.Code) {
				codes = append(codes, r.Code)
			}
		}
	}
	if len(m.Groups) == 0 {
		return Unchanged, nil
	}
	return Refused, codes
}

// Reason is the first reason against a refused change, for people.
func (m Made) Reason() string {
	for _, g := range m.Groups {
		for _, r := range g.Reasons {
			return fmt.Sprintf("%s: %s: %s", r.Code, r.What, r.Detail)
		}
	}
	return ""
}

// Make builds the splice of a change, with its custom code if that is asked for.
func (m *Maker) Make(ctx context.Context, c Change, custom bool) (Made, error) {
	text, err := c.Patch()
	if err != nil {
		return Made{}, err
	}
	// A backport, 6.12.9-1~deb12u1, has what the version that it is of has.
	since, _, _ := strings.Cut(c.Since, "~")
	version, _, _ := strings.Cut(m.Kernel.Version, "~")
	order, err := debversion.Compare(since, version)
	if err != nil {
		return Made{}, err
	}
	made := Made{Reverse: order <= 0}
	if made.Reverse {
		text = reverse(text)
	}
	dir := filepath.Join(m.Cache, "patches")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return made, err
	}
	name := filepath.Join(dir, c.Name+".patch")
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return made, err
	}
	req := build.Request{From: rig.Side(m.Kernel), Patches: []string{name}, Description: c.Title, Cache: m.Cache}
	if req.CFiles, err = cfiles.Write(filepath.Join(m.Cache, "cfiles")); err != nil {
		return made, err
	}
	if custom {
		if !made.Reverse {
			return made, errors.New("its custom code is for the change taken out, and the kernel has not got it yet")
		}
		text, err := c.CustomPatch()
		if err != nil {
			return made, err
		}
		name := filepath.Join(dir, strings.ReplaceAll(c.Custom, "/", "-"))
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return made, err
		}
		req.Patches = append(req.Patches, name)
	}
	res, err := build.Run(ctx, req)
	if err != nil {
		return made, err
	}
	made.File, made.Groups, made.Notes = res.File, res.Groups, res.Notes
	return made, nil
}
