// SPDX-License-Identifier: Apache-2.0

package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/upsplice/upsplice/hook/config"
	"github.com/upsplice/upsplice/hook/journal"
	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/hook/progress"
	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// world is a machine made of files, so that it survives a killed process: what
// the kernel has loaded is in dir/kernel.
type world struct {
	dir string
	// at is called with the name of each point that work passes.
	at func(point string)
	// groups that the engine finds; nil is one live group.
	groups []splicefile.Group
	nofile bool
	other  bool             // the engine makes a splice that nobody asked for
	fail   map[string]error // by point
}

func newWorld(t *testing.T) *world {
	return &world{dir: t.TempDir(), at: func(string) {}, fail: map[string]error{}}
}

func (w *world) pass(point string) error {
	w.at(point)
	return w.fail[point]
}

func (w *world) journal(t testing.TB, boot string) *journal.Journal {
	j, err := journal.Open(journal.Options{Dir: filepath.Join(w.dir, "state"), BootID: boot})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func (w *world) pipeline(t testing.TB, boot string) *Pipeline {
	cfg := config.Default()
	cfg.Cache = filepath.Join(w.dir, "cache")
	return &Pipeline{
		Config: cfg, Journal: w.journal(t, boot), Kernel: &fakeKernel{w, "1.0-1-cloud"}, Builder: fakeBuilder{w},
		Open: func(context.Context) (Backend, error) { return fakeBackend{w}, w.pass("open") },
		Sink: progress.SinkFunc(func(progress.Event) {}),
	}
}

func (w *world) loaded() []string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "kernel"))
	return strings.Fields(string(b))
}

func (w *world) load(names ...string) error {
	return os.WriteFile(filepath.Join(w.dir, "kernel"), []byte(strings.Join(names, "\n")), 0o644)
}

type fakeBackend struct{ *world }

func kernelOf(release string) backend.Kernel {
	return backend.Kernel{Release: release, Flavour: "cloud", Arch: "amd64", Package: "linux-image-" + release,
		Version: release, Source: "linux", SourceVersion: strings.TrimSuffix(release, "-cloud")}
}

func (fakeBackend) Close() error { return nil }
func (fakeBackend) Describe(context.Context) (backend.Description, error) {
	return backend.Description{Name: "fake"}, nil
}
func (fakeBackend) Kernels(_ context.Context, packages []backend.Package) (out []backend.Kernel, err error) {
	for _, p := range packages {
		if release, ok := strings.CutPrefix(p.Name, "linux-image-"); ok {
			out = append(out, kernelOf(release))
		}
	}
	return out, nil
}
func (fakeBackend) Installed(_ context.Context, release string) (backend.Kernel, error) {
	return kernelOf(release), nil
}
func (fakeBackend) Available(context.Context, string) ([]backend.Kernel, error) {
	return []backend.Kernel{kernelOf("1.0-1-cloud"), kernelOf("1.0-2-cloud")}, nil
}
func (fakeBackend) Compare(_ context.Context, a, b backend.Kernel) (int, error) {
	return strings.Compare(a.Version, b.Version), nil
}
func (f fakeBackend) Fetch(context.Context, backend.FetchRequest, func(backend.Progress)) (backend.Materials, error) {
	return backend.Materials{Compiler: "cc"}, f.pass("fetch")
}
func (fakeBackend) Changes(context.Context, backend.Kernel, backend.Kernel) ([]backend.Change, error) {
	return nil, errors.New("no changelog")
}
func (fakeBackend) Prebuilt(context.Context, backend.Kernel, backend.Kernel, string) ([]backend.Prebuilt, error) {
	return nil, nil
}

type fakeBuilder struct{ *world }

func (f fakeBuilder) Prepare(context.Context, build.Kernel, string, progress.Sink) error {
	return f.pass("prepare")
}

func (f fakeBuilder) Build(_ context.Context, req build.Request, _ progress.Sink) (Built, error) {
	if err := f.pass("build"); err != nil {
		return Built{}, err
	}
	b := Built{Groups: f.groups, Files: 1, Units: 1}
	if f.nofile {
		return b, nil
	}
	if b.Groups == nil {
		b.Groups = []splicefile.Group{{Units: []string{"fs/a/b.o"}, Functions: []string{"f"}, Live: true}}
	}
	if f.other {
		req.To.Release = "9.9-cloud"
	}
	name := "upsplice_" + strings.ReplaceAll(req.To.Version, ".", "_")
	s := &splicefile.File{
		Manifest: splicefile.Manifest{From: req.From.Kernel, To: req.To.Kernel, Groups: b.Groups,
			Functions: []splicefile.Function{{Name: "f", Unit: "fs/a/b.o", Kind: "changed"}},
			Modules:   []splicefile.Module{{Name: name, File: name + ".ko"}}},
		Payload: map[string][]byte{name: []byte("module of " + req.To.Version)},
	}
	b.File = filepath.Join(f.dir, name+".splice")
	out, err := os.Create(b.File)
	if err != nil {
		return b, err
	}
	defer out.Close()
	return b, splicefile.Write(out, s)
}

type fakeKernel struct {
	*world
	release string
}

func (k *fakeKernel) Release() string { return k.release }
func (k *fakeKernel) Modules() ([]string, error) {
	return []string{"ext4", "nf_tables"}, k.pass("modules")
}
func (k *fakeKernel) Ready() error { return k.pass("ready") }
func (k *fakeKernel) Check(*splicefile.File) error {
	return k.pass("check")
}
func (k *fakeKernel) Apply(_ context.Context, f *splicefile.File, _ progress.Sink) error {
	if err := k.pass("apply"); err != nil {
		return err
	}
	if err := k.load(f.Manifest.Modules[0].Name); err != nil {
		return err
	}
	return k.pass("applied")
}
func (k *fakeKernel) Undo(context.Context, *splicefile.File, progress.Sink) error {
	if err := k.pass("undo"); err != nil {
		return err
	}
	if err := k.load(); err != nil {
		return err
	}
	return k.pass("undone")
}
func (k *fakeKernel) IsLive(f *splicefile.File) (bool, error) {
	for _, m := range k.loaded() {
		if m == f.Manifest.Modules[0].Name {
			return true, nil
		}
	}
	return false, nil
}

// Holds: a livepatch whose tasks are switching has a ~ behind its name.
func (k *fakeKernel) Holds(f *splicefile.File) (bool, error) {
	for _, m := range k.loaded() {
		if strings.TrimSuffix(m, "~") == f.Manifest.Modules[0].Name {
			return true, nil
		}
	}
	return false, nil
}
func (k *fakeKernel) Reap() error { return k.pass("reap") }

// die is a point at which the process is killed, as a machine or a person would.
func die(at string) func(string) {
	return func(point string) {
		if point == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

func refusal(check string) error {
	return &outcome.Error{Outcome: outcome.Refused, Check: check, What: "checking", Err: errors.New("no")}
}
