// SPDX-License-Identifier: Apache-2.0

package patch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/tree"
)

// content is a file at some point of the patching.
type content struct {
	text    string
	exec    bool
	removed bool
	kept    bool // false: what it holds is not known
}

// applier holds the state of the tree while the patches go over it.
type applier struct {
	base   *tree.Base
	now    map[string]content // touched by the patches so far
	before map[string]content // now, when the current commit began
	report Report

	patch  *Patch
	commit int
	moved  map[string]bool // sources of renames in the current commit
	done   map[string]bool // written in the current commit
}

func apply(ctx context.Context, base, dir string, patches []*Patch) (*tree.Delta, *Report, error) {
	if len(patches) == 0 {
		return nil, nil, errors.New("applying patches: there are none")
	}
	b, err := tree.OpenBase(base)
	if err != nil {
		return nil, nil, fmt.Errorf("applying patches: %w", err)
	}
	a := &applier{base: b, now: make(map[string]content), report: Report{Hunks: []Placed{}}}
	for _, p := range patches {
		if err := a.take(ctx, p); err != nil {
			return nil, nil, err
		}
	}
	changes := make(map[string]tree.Change)
	for name, c := range a.now {
		if c.removed && b.Kind(name) == tree.Absent {
			continue // made by one patch and removed by the next
		}
		changes[name] = tree.Change{Text: []byte(c.text), Exec: c.exec, Removed: c.removed}
	}
	delta, err := b.Fork(ctx, dir, changes)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(a.report.Ignored)
	a.report.Ignored = slices.Compact(a.report.Ignored)
	return delta, &a.report, nil
}

// take applies one patch.
func (a *applier) take(ctx context.Context, p *Patch) error {
	a.patch = p
	strip, err := a.strip()
	if err != nil {
		return err
	}
	a.commit = -1
	for i := range p.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f := &p.Files[i]; f.commit != a.commit {
			a.begin(f.commit, strip)
		}
		if err := a.file(&p.Files[i], strip); err != nil {
			return err
		}
	}
	return nil
}

// begin starts the next commit of a patch: all its changes are relative to the state
// before it, wherever they stand in the patch.
func (a *applier) begin(commit int, strip stripper) {
	a.commit = commit
	a.before = maps.Clone(a.now)
	a.moved, a.done = make(map[string]bool), make(map[string]bool)
	for i := range a.patch.Files {
		if f := &a.patch.Files[i]; f.commit == commit && f.Renamed {
			old, _ := strip(f)
			a.moved[old] = true
		}
	}
}

// get returns a file as the patches have left it so far.
func (a *applier) get(name string, state map[string]content) (content, bool, error) {
	if c, ok := state[name]; ok {
		return c, !c.removed, nil
	}
	switch a.base.Kind(name) {
	case tree.Kept:
		text, exec, err := a.base.Read(name)
		return content{text: string(text), exec: exec, kept: true}, true, err
	case tree.Dropped:
		return content{}, true, nil
	}
	return content{}, false, nil
}

func (a *applier) unsupported(f *File, name, format string, arg ...any) error {
	return &UnsupportedError{Patch: a.patch.Name, File: name, PatchLine: f.Line, Reason: fmt.Sprintf(format, arg...)}
}

// file applies what the patch does to one file.
func (a *applier) file(f *File, strip stripper) error {
	old, new := strip(f)
	name := new
	if name == "" {
		name = old
	}
	if !a.base.Keeps(name) {
		return a.ignore(f, old, name)
	}
	if err := a.supported(f, name, old); err != nil {
		return err
	}
	was := content{kept: true}
	if !f.Created {
		state := a.now
		if f.Renamed || f.Copied {
			state = a.before
		}
		c, there, err := a.get(old, state)
		if err != nil {
			return fmt.Errorf("applying %s: %w", a.patch.Name, err)
		}
		if !there {
			return a.missing(f, old, new)
		}
		was = c
	}
	is := content{exec: was.exec, removed: f.Deleted, kept: true}
	if f.NewMode != 0 {
		is.exec = f.NewMode&0o100 != 0
	}
	if !was.kept {
		return a.unsupported(f, name, "moves a file into the part of the source that objects are made from; its contents are not kept")
	}
	text, err := a.hunks(f, name, was)
	if err != nil {
		return err
	}
	is.text = text
	if f.Created || f.Renamed || f.Copied {
		if err := a.free(f, new, is); err != nil {
			return err
		}
	}
	if f.Deleted && is.text != "" {
		return &HunkError{Patch: a.patch.Name, File: name, Hunk: len(f.Hunks), PatchLine: f.Line,
			Reason: "it deletes the file, which has lines that the patch does not know; make the patch for the source of this kernel"}
	}
	if f.Renamed && !a.done[old] {
		a.now[old] = content{removed: true}
	}
	a.now[name], a.done[name] = is, true
	return nil
}

// ignore notes a change to a file of which no object is made. Whether it fits is not
// looked at: the tree has not got the contents.
func (a *applier) ignore(f *File, old, name string) error {
	a.report.Ignored = append(a.report.Ignored, name)
	if f.Renamed {
		c, there, err := a.get(old, a.before)
		if err != nil {
			return fmt.Errorf("applying %s: %w", a.patch.Name, err)
		}
		if there && !a.done[old] {
			a.now[old] = content{removed: true, kept: c.kept}
		}
	}
	a.now[name], a.done[name] = content{removed: f.Deleted}, true
	return nil
}

// supported refuses what cannot be compiled.
func (a *applier) supported(f *File, name, old string) error {
	if f.Binary {
		return a.unsupported(f, name, "a binary change; a splice is made from sources only")
	}
	for _, mode := range []uint32{f.OldMode, f.NewMode} {
		switch mode & 0o170000 {
		case 0, modeFile & 0o170000:
		case modeLink:
			return a.unsupported(f, name, "a symbolic link")
		case modeGitlink:
			return a.unsupported(f, name, "a submodule")
		default:
			return a.unsupported(f, name, "a file of mode %o", mode)
		}
	}
	for _, n := range []string{old, name} {
		if n != "" && a.base.Kind(n) == tree.Link {
			return a.unsupported(f, n, "a symbolic link in the kernel's source")
		}
	}
	return nil
}

// missing explains why a file is not there: a deletion or a rename that was done
// already looks like that.
func (a *applier) missing(f *File, old, new string) error {
	if f.Deleted {
		return &AppliedError{Patch: a.patch.Name, File: old}
	}
	if f.Renamed {
		if _, there, _ := a.get(new, a.now); there {
			return &AppliedError{Patch: a.patch.Name, File: new}
		}
	}
	return a.unsupported(f, old, "not in the source of this kernel")
}

// free makes sure that nothing is in the place of a new file.
func (a *applier) free(f *File, name string, is content) error {
	c, there, err := a.get(name, a.now)
	if err != nil {
		return fmt.Errorf("applying %s: %w", a.patch.Name, err)
	}
	switch {
	case a.base.Kind(name) == tree.Dir:
		return a.unsupported(f, name, "a directory in the kernel's source")
	case !there || a.moved[name] && !a.done[name]:
		return nil
	case c.kept && c.text == is.text:
		return &AppliedError{Patch: a.patch.Name, File: name}
	}
	return a.unsupported(f, name, "the patch makes this file, and the kernel's source has one already")
}

// hunks applies the hunks of one file to its text.
func (a *applier) hunks(f *File, name string, was content) (string, error) {
	t := newText(was.text)
	placed, hunkErr := t.apply(f.Hunks)
	if hunkErr == nil {
		for _, p := range placed {
			p.Patch, p.File = a.patch.Name, name
			a.report.Hunks = append(a.report.Hunks, p)
		}
		return t.String(), nil
	}
	hunkErr.Patch, hunkErr.File = a.patch.Name, name
	switch done := applied(was.text, f.Hunks); {
	case len(done) == len(f.Hunks):
		return "", &AppliedError{Patch: a.patch.Name, File: name}
	case slices.Contains(done, hunkErr.Hunk):
		return "", &AppliedError{Patch: a.patch.Name, File: name, Hunk: hunkErr.Hunk}
	}
	return "", hunkErr
}

// stripper returns the two names of a file in the tree.
type stripper func(f *File) (old, new string)

// strip finds out how much of the names of a patch to take off: what its files are
// then found under in the tree.
func (a *applier) strip() (stripper, error) {
	var first error
	for _, level := range []int{1, 0} {
		err := a.fits(level)
		if err == nil {
			return func(f *File) (string, string) { return a.names(f, level) }, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// names are those of a file with level components taken off. Of a plain diff, whose
// two names may differ (x.c.orig and x.c), it takes the one that is in the tree.
func (a *applier) names(f *File, level int) (old, new string) {
	if f.Renamed || f.Copied {
		return f.Old, f.New
	}
	old, new = strings.TrimPrefix(f.Old, "./"), strings.TrimPrefix(f.New, "./")
	if level == 1 {
		old, new = behind(f.Old), behind(f.New)
	}
	if f.Old == "" || f.New == "" || old == new {
		return old, new
	}
	switch hasOld, hasNew := a.known(old), a.known(new); {
	case hasOld && !hasNew:
		return old, old
	case hasNew && !hasOld:
		return new, new
	}
	return old, new
}

// known says whether a path is or was in the tree.
func (a *applier) known(name string) bool {
	if _, touched := a.now[name]; touched {
		return true
	}
	return name != "" && a.base.Kind(name) != tree.Absent
}

// fits says whether all files of the patch make sense with that many components
// taken off: files to change are there, and files to make belong somewhere.
func (a *applier) fits(level int) error {
	made := make(map[string]bool)
	for i := range a.patch.Files {
		f := &a.patch.Files[i]
		old, new := a.names(f, level)
		switch {
		case f.Created:
			raw, _, _ := strings.Cut(f.New, "/")
			top, _, inDir := strings.Cut(new, "/")
			belongs := new != "" && (level == 0 && inDir || a.base.Kind(raw) != tree.Dir) &&
				(!inDir || a.base.Kind(top) == tree.Dir || level == 1 && raw == "b")
			if !belongs && !made[new] && !a.known(new) {
				return a.unsupported(f, f.New, "it is not clear where this new file belongs; make the patch at the top of the source (git diff, or diff -ruN a b)")
			}
		case f.Old != "" && f.New != "" && old != new && !f.Renamed && !f.Copied:
			return a.unsupported(f, f.Old, "old and new name differ (%s), and not just one of them is in the source", f.New)
		case f.Deleted || f.Renamed:
			// May be gone already, which is reported as such.
			if old == "" || !a.known(old) && !made[old] && a.base.Kind(path.Dir(old)) != tree.Dir {
				return a.unsupported(f, f.Old, "not in the source of this kernel")
			}
		case old == "" || !a.known(old) && !made[old] && !a.dropped(old):
			return a.unsupported(f, f.Old, "not in the source of this kernel")
		}
		made[new] = true
	}
	return nil
}

// dropped says whether a path that is not in the tree would not be looked at anyway:
// distributions leave out some of the documentation.
func (a *applier) dropped(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return !a.base.Keeps(name) && a.base.Kind(top) == tree.Dir
}
