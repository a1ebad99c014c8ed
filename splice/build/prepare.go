// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/tree"
)

// kernelArch maps Kernel.Arch, in Go's form, to the kernel's own name.
var kernelArch = map[string]string{"amd64": "x86"}

func prepare(ctx context.Context, k Kernel, cache string, progress func(Event)) error {
	s, err := openStore(ctx, cache)
	if err != nil {
		return named(cache, err)
	}
	defer s.close()
	p := newReporter(progress)
	sd, err := s.side(k)
	if err != nil {
		return named(cache, err)
	}
	if err := s.ready(ctx, sd, p); err != nil {
		return named(cache, err)
	}
	s.prune(sd.treeID, sd.outID, sd.imageID)
	return nil
}

// side is one kernel with what the cache has or will have of it.
type side struct {
	Kernel
	arch                   string
	treeID, outID, imageID string
	tree                   string // directory
}

func (s *store) side(k Kernel) (*side, error) {
	sd := &side{Kernel: k, arch: kernelArch[k.Arch]}
	if sd.arch == "" {
		return nil, fmt.Errorf("preparing %s: architecture %q is not known", k.Release, k.Arch)
	}
	archive, err := archiveID(k.SourceArchive)
	if err != nil {
		return nil, fmt.Errorf("needing the source archive of %s: %w", k.Version, err)
	}
	sd.treeID = idOf("tree", k.Version, sd.arch, archive)
	sd.tree = s.path("trees", sd.treeID)
	if k.Image != "" {
		digest, err := fileDigest(k.Image)
		if err != nil {
			return nil, fmt.Errorf("needing the image of %s: %w", k.Release, err)
		}
		sd.imageID = idOf("image", digest)
	}
	return sd, nil
}

// output returns the output directory of a side that may not have been made yet.
func (s *store) output(sd *side) (*kbuild.Output, error) {
	parts := []any{"out", s.dir, sd.treeID, sd.Release, sd.Headers, sd.Kbuild, sd.CC}
	for _, name := range []string{".config", "include/generated/autoconf.h"} {
		digest, err := fileDigest(filepath.Join(sd.Headers, name))
		if err != nil {
			return nil, fmt.Errorf("needing the headers of %s: %w", sd.Release, err)
		}
		parts = append(parts, digest)
	}
	sd.outID = idOf(parts...)
	return &kbuild.Output{Dir: s.path("out", sd.outID), Materials: kbuild.Materials{
		Release: sd.Release, Arch: sd.arch, Source: sd.tree, Headers: sd.Headers, Kbuild: sd.Kbuild, CC: sd.CC,
	}}, nil
}

// ready makes everything that needs only the one kernel. Each step is done if its
// result is not there yet; nothing that is there is looked at again.
func (s *store) ready(ctx context.Context, sd *side, p *reporter) error {
	if !s.has("trees", sd.treeID) {
		if _, err := s.extract(ctx, sd, nil, p); err != nil {
			return err
		}
	}
	o, err := s.output(sd)
	if err != nil {
		return err
	}
	if !s.has("out", sd.outID) {
		p.event("prepare", "preparing the build of "+sd.Release, 0, 0)
		if _, err := kbuild.Seed(ctx, o.Dir, o.Materials); err != nil {
			return err
		}
	}
	if !s.has("units", sd.outID) {
		p.event("prepare", "listing the units of "+sd.Release, 0, 0)
		units, err := o.Query(ctx)
		list := unitList{Units: units}
		var incomplete *kbuild.IncompleteError
		if errors.As(err, &incomplete) {
			list.Missing = incomplete.Messages
		} else if err != nil {
			return err
		}
		if err := s.write("units", sd.outID, list.encode); err != nil {
			return fmt.Errorf("storing the unit list: %w", err)
		}
	}
	if sd.imageID != "" {
		if !s.has("images", sd.imageID) {
			p.event("prepare", "unpacking the image of "+sd.Release, 0, 0)
			if _, err := s.image(sd); err != nil {
				return err
			}
		}
	}
	return nil
}

// extract unpacks the source archive of a side, with the delta to base unless that is nil.
func (s *store) extract(ctx context.Context, sd *side, base *side, p *reporter) (*tree.Delta, error) {
	r, err := tree.OpenTar(ctx, sd.SourceArchive)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	stage, text := "prepare", "unpacking the source of "+sd.Version
	opt := tree.Options{Arch: sd.arch}
	if base != nil {
		stage, text = "delta", "comparing the sources of "+base.Version+" and "+sd.Version
		opt.Base = base.tree
	}
	p.event(stage, text, 0, 0)
	opt.Progress = func(n int64) { p.bytes(stage, text, n) }
	return tree.Extract(ctx, r, sd.tree, opt)
}

// delta returns the difference of two sides, unpacking the source of the second
// one if that was not done, or done without the comparison.
func (s *store) delta(ctx context.Context, from, to *side, p *reporter) (*tree.Delta, error) {
	id := to.treeID + ".delta-" + from.treeID
	if from.treeID == to.treeID {
		return &tree.Delta{}, nil
	}
	if s.has("trees", to.treeID) {
		var d tree.Delta
		text, err := os.ReadFile(s.path("trees", id))
		if err == nil && json.Unmarshal(text, &d) == nil {
			return &d, nil
		}
		if err := os.RemoveAll(to.tree); err != nil {
			return nil, err
		}
	}
	d, err := s.extract(ctx, to, from, p)
	if err != nil {
		return nil, err
	}
	err = s.write("trees", id, func(w io.Writer) error { return json.NewEncoder(w).Encode(d) })
	if err != nil {
		return nil, fmt.Errorf("storing the delta: %w", err)
	}
	return d, nil
}

// image opens the image of a side. The unpacked one is kept: to unpack it takes
// longer than to read it.
func (s *store) image(sd *side) (*kimage.Image, error) {
	path, stored := sd.Image, s.has("images", sd.imageID)
	if stored {
		path = s.path("images", sd.imageID)
	}
	img, err := kimage.OpenFile(path)
	if err != nil && stored {
		// Cut short by a power failure, or of a version that reads it in another way.
		stored = false
		img, err = kimage.OpenFile(sd.Image)
	}
	if err != nil {
		return nil, err
	}
	if !stored {
		err := s.write("images", sd.imageID, func(w io.Writer) error {
			_, err := w.Write(img.Vmlinux)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("storing the image: %w", err)
		}
	}
	if img.Release != sd.Release {
		return nil, fmt.Errorf("opening %s: it is an image of %s, not of %s", sd.Image, img.Release, sd.Release)
	}
	if sd.BuildID != "" && sd.BuildID != img.BuildID {
		return nil, fmt.Errorf("opening %s: its build id is %s, not %s", sd.Image, img.BuildID, sd.BuildID)
	}
	return img, nil
}

// unitList is what is stored about the units of a configuration.
type unitList struct {
	Missing []string // make's messages if it could not list everything
	Units   []kbuild.Unit
}

func (l unitList) encode(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(l.Missing); err != nil {
		return err
	}
	return kbuild.EncodeUnits(w, l.Units)
}

func (s *store) units(sd *side) (unitList, error) {
	var l unitList
	text, err := os.ReadFile(s.path("units", sd.outID))
	if err != nil {
		return l, err
	}
	head, rest, _ := bytes.Cut(text, []byte("\n"))
	if err := json.Unmarshal(head, &l.Missing); err != nil {
		return l, fmt.Errorf("reading %s: %w", s.path("units", sd.outID), err)
	}
	l.Units, err = kbuild.DecodeUnits(bytes.NewReader(rest))
	return l, err
}

func sortByAge(files []os.FileInfo) {
	slices.SortFunc(files, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) }) // newest first
}
