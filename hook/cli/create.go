// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/pipeline"
	"github.com/upsplice/upsplice/splice/patch"
)

// inputs of a splice, as they stand on the command line.
type inputs struct {
	kernel      string
	patches     []string
	git, commit string
	from, to    string
	trees       bool // from and to are directories
	description string
	output      string
	html        string // file for the report
	json        bool
}

const createForms = `
  upsplice create [--kernel RELEASE] --patch FILE [--patch FILE]... [-o FILE.splice]
  upsplice create [--kernel RELEASE] --git DIR COMMIT [-o FILE.splice]
  upsplice create [--kernel RELEASE] --from DIR --to DIR [-o FILE.splice]
  upsplice create [--from RELEASE] --to RELEASE [-o FILE.splice]`

func (a *app) createCommand() *cobra.Command {
	var in inputs
	c := &cobra.Command{
		Use:   "create (--patch FILE | --git DIR COMMIT | --from DIR --to DIR | --to RELEASE) [-o FILE.splice]",
		Short: "Build a splice of a patch, a commit, two source trees or an update",
		Long: "create builds a splice for a kernel, by default the running one, and says what of the\n" +
			"change is live with it, function by function, and why the rest is not. Without -o it\n" +
			"writes nothing. The kernel need not be installed if an archive has its packages.\n" +
			"Patches are unified diffs (git, diff -u); several are applied in order. Forms:\n" + createForms,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				in.commit = args[0]
			}
			if err := in.check(); err != nil {
				return &outcome.Error{Outcome: outcome.Usage, What: "reading the command line", Err: err, Remedy: "the forms are:" + createForms}
			}
			return a.create(c.Context(), in)
		},
	}
	f := c.Flags()
	f.StringVar(&in.kernel, "kernel", "", "kernel `release` that the splice is for (default: the running one)")
	f.StringArrayVar(&in.patches, "patch", nil, "unified diff `file`; may be repeated")
	f.StringVar(&in.git, "git", "", "repository `directory` that has COMMIT")
	f.StringVar(&in.from, "from", "", "source `directory` before the change, or kernel release to start from")
	f.StringVar(&in.to, "to", "", "source `directory` with the change, or kernel release to lead to")
	f.StringVar(&in.description, "description", "", "`text` about the patches, kept in the splice")
	f.StringVarP(&in.output, "output", "o", "", "the .splice `file` to write (default: print the plan only)")
	f.StringVar(&in.html, "html", "", "write the report as an HTML page to `file` (-: standard output)")
	f.BoolVar(&in.json, "json", false, "print JSON")
	return c
}

// check refuses combinations that mean nothing, and finds out what --from and --to are.
func (in *inputs) check() error {
	forms := 0
	for _, given := range []bool{len(in.patches) > 0, in.git != "", in.from != "" || in.to != ""} {
		if given {
			forms++
		}
	}
	in.trees = isDir(in.from) && isDir(in.to)
	switch {
	case forms > 1:
		return errors.New("--patch, --git and --from/--to cannot be combined")
	case in.git == "" && in.commit != "":
		return fmt.Errorf("a commit (%q) goes with --git DIR", in.commit)
	case in.git != "" && in.commit == "":
		return errors.New("--git DIR needs a COMMIT")
	case !in.trees && (isDir(in.from) && in.to != "" || isDir(in.to)):
		return errors.New("--from and --to must be two directories or two releases")
	case !in.trees && (strings.ContainsRune(in.from, '/') || strings.ContainsRune(in.to, '/')):
		return errors.New("--from and --to: a directory does not exist")
	case forms == 0 && in.output == "":
		return errors.New("it is not said what to make a splice of")
	case !in.ofPatches() && in.kernel != "":
		return errors.New("--kernel is for patches; an update starts from the release of --from")
	case !in.ofPatches() && in.description != "":
		return errors.New("--description is for patches")
	}
	return nil
}

// ofPatches says whether a patch is asked for, in whatever form it comes; if not, it
// is an update from a release to another.
func (in *inputs) ofPatches() bool { return len(in.patches) > 0 || in.git != "" || in.trees }

func isDir(path string) bool {
	st, err := os.Stat(path)
	return path != "" && err == nil && st.IsDir()
}

// files returns the patch files, and what removes those that were made for it.
func (in *inputs) files(ctx context.Context) (files []string, done func(), err error) {
	if len(in.patches) > 0 {
		for _, p := range in.patches {
			if _, err := os.Stat(p); err != nil {
				return nil, nil, err
			}
		}
		return in.patches, func() {}, nil
	}
	var text []byte
	name := ""
	if in.git != "" {
		id, err := patch.CommitID(ctx, in.git, in.commit)
		if err != nil {
			return nil, nil, err
		}
		name = id[:12]
		text, err = patch.FromGit(ctx, in.git, id)
		if err != nil {
			return nil, nil, err
		}
	} else {
		name = plain(in.from) + "-to-" + plain(in.to)
		if text, err = patch.FromTrees(ctx, in.from, in.to); err != nil {
			return nil, nil, err
		}
	}
	dir, err := os.MkdirTemp("", "upsplice-create-")
	if err != nil {
		return nil, nil, err
	}
	done = func() { os.RemoveAll(dir) }
	file := filepath.Join(dir, name+".patch")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		done()
		return nil, nil, err
	}
	return []string{file}, done, nil
}

var odd = regexp.MustCompile(`[^A-Za-z0-9._+-]+`)

// plain is the last part of a path, fit for a file name of any system.
func plain(path string) string {
	name := odd.ReplaceAllString(filepath.Base(filepath.Clean(path)), "_")
	return name[:min(len(name), 64)]
}

// step finds the kernels, and brings the patches into files.
func (in *inputs) step(ctx context.Context, p *pipeline.Pipeline) (pipeline.Step, func(), error) {
	if !in.ofPatches() {
		step, err := p.Find(ctx, in.from, in.to)
		return step, func() {}, err
	}
	files, done, err := in.files(ctx)
	if err != nil {
		return pipeline.Step{}, nil, &outcome.Error{Outcome: outcome.Failed, What: "reading the patch", Err: err}
	}
	step, err := p.Patch(ctx, in.kernel, files, in.description)
	if err != nil {
		done()
	}
	return step, done, err
}

func (a *app) create(ctx context.Context, in inputs) error {
	for _, file := range []string{in.output, in.html} {
		if file != "" && file != "-" && !isDir(filepath.Dir(file)) {
			return &outcome.Error{Outcome: outcome.Failed, What: "writing " + file, Err: errors.New("its directory does not exist")}
		}
	}
	r := a.renderer()
	defer r.Close()
	p, err := a.pipeline(r)
	if err != nil {
		return err
	}
	step, done, err := in.step(ctx, p)
	if err != nil {
		return err
	}
	defer done()
	built, err := p.Make(ctx, &step)
	if err != nil {
		return err
	}
	r.Close()
	return a.planned(in, step, built)
}
