// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// fake answers every call with what its fields say.
type fake struct {
	err     error
	got     []any
	fetch   func(ctx context.Context, req FetchRequest, progress func(Progress)) (Materials, error)
	changes []Change
}

func (f *fake) Describe(context.Context) (Description, error) {
	return Description{"fake", "1.2", []string{"a", "b"}}, f.err
}

func (f *fake) Kernels(_ context.Context, p []Package) ([]Kernel, error) {
	f.got = append(f.got, p)
	return []Kernel{sampleKernel, {Release: "2"}}, f.err
}

func (f *fake) Installed(_ context.Context, release string) (Kernel, error) {
	f.got = append(f.got, release)
	return sampleKernel, f.err
}

func (f *fake) Available(_ context.Context, flavour string) ([]Kernel, error) {
	f.got = append(f.got, flavour)
	return []Kernel{{Release: "1"}, sampleKernel}, f.err
}

func (f *fake) Compare(_ context.Context, a, b Kernel) (int, error) {
	f.got = append(f.got, a, b)
	return -7, f.err
}

func (f *fake) Fetch(ctx context.Context, req FetchRequest, progress func(Progress)) (Materials, error) {
	f.got = append(f.got, req)
	return f.fetch(ctx, req, progress)
}

func (f *fake) Changes(_ context.Context, from, to Kernel) ([]Change, error) {
	f.got = append(f.got, from, to)
	return f.changes, f.err
}

func (f *fake) Prebuilt(_ context.Context, from, to Kernel, buildID string) ([]Prebuilt, error) {
	f.got = append(f.got, from, to, buildID)
	return []Prebuilt{{"https://example.org/x.splice", "abc"}}, f.err
}

var (
	sampleKernel    = Kernel{"6.1.0-56-amd64", "amd64", "amd64", "linux-image", "6.1-2", "linux", "6.1-2+s", "/x.deb"}
	sampleMaterials = Materials{"/s", "/h", "/k", "/c", "/i", "/m", "/lib/modules/6.1.0-56-amd64", "gcc-12"}
)

func dial(t *testing.T, impl Backend) Backend {
	t.Helper()
	c, s := plugin.TestPluginGRPCConn(t, false, Plugins(impl))
	t.Cleanup(func() { c.Close(); s.Stop() })
	raw, err := c.Dispense(PluginName)
	if err != nil {
		t.Fatal(err)
	}
	return raw.(Backend)
}

// Every field of every message must arrive: a forgotten one would be zero here.
func TestRoundTrip(t *testing.T) {
	ctx := t.Context()
	f := &fake{changes: []Change{{"1", "text", []string{"CVE-2026-1"}}}}
	f.fetch = func(_ context.Context, _ FetchRequest, progress func(Progress)) (Materials, error) {
		progress(Progress{"one", 1, 2})
		progress(Progress{"two", 2, 2})
		return sampleMaterials, nil
	}
	b := dial(t, f)
	packages := []Package{{"n", "amd64", "1", "2", "/p"}, {Name: "m"}}
	req := FetchRequest{sampleKernel, "/dir", []Want{WantSource, WantImage}}
	var progress []Progress

	d, err1 := b.Describe(ctx)
	ks, err2 := b.Kernels(ctx, packages)
	k, err3 := b.Installed(ctx, "6.1.0-56-amd64")
	av, err7 := b.Available(ctx, "amd64")
	order, err8 := b.Compare(ctx, sampleKernel, Kernel{Release: "3"})
	m, err4 := b.Fetch(ctx, req, func(p Progress) { progress = append(progress, p) })
	cs, err5 := b.Changes(ctx, sampleKernel, Kernel{Release: "2"})
	ps, err6 := b.Prebuilt(ctx, sampleKernel, Kernel{Release: "2"}, "build-id")
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
		t.Fatal(err)
	}
	got := []any{d, ks, k, av, order, m, progress, cs, ps}
	want := []any{
		Description{"fake", "1.2", []string{"a", "b"}}, []Kernel{sampleKernel, {Release: "2"}}, sampleKernel,
		[]Kernel{{Release: "1"}, sampleKernel}, -1, sampleMaterials, []Progress{{"one", 1, 2}, {"two", 2, 2}},
		f.changes, []Prebuilt{{"https://example.org/x.splice", "abc"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("answers:", d)
	}
	asked := []any{packages, "6.1.0-56-amd64", "amd64", sampleKernel, Kernel{Release: "3"}, req, sampleKernel, Kernel{Release: "2"}, sampleKernel, Kernel{Release: "2"}, "build-id"}
	if d := cmp.Diff(asked, f.got); d != "" {
		t.Error("requests:", d)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	for _, kind := range []Kind{NotFound, Unavailable, Corrupt, NoSpace, Unsupported, Internal} {
		sent := &Error{Kind: kind, What: "thing", Detail: "why", Remedy: "do this"}
		f := &fake{err: fmt.Errorf("wrapped: %w", sent)}
		f.fetch = func(context.Context, FetchRequest, func(Progress)) (Materials, error) { return Materials{}, f.err }
		b := dial(t, f)
		_, err1 := b.Kernels(t.Context(), nil)
		_, err2 := b.Fetch(t.Context(), FetchRequest{}, nil)
		for _, err := range []error{err1, err2} {
			var got *Error
			if !errors.As(err, &got) || *got != *sent {
				t.Errorf("sent %#v, received %#v", sent, err)
			}
			if !errors.Is(err, &Error{Kind: kind}) || errors.Is(err, &Error{Kind: "other"}) {
				t.Errorf("errors.Is does not tell the kind of %v", err)
			}
		}
	}
}

func TestOtherErrors(t *testing.T) {
	f := &fake{err: errors.New("plain \xff " + strings.Repeat("x", 100_000))}
	f.fetch = func(context.Context, FetchRequest, func(Progress)) (Materials, error) { panic("oops") }
	b := dial(t, f)
	_, err := b.Installed(t.Context(), "x")
	var e *Error
	if !errors.As(err, &e) || e.Kind != Internal || !strings.HasPrefix(e.Detail, "plain ? xxx") {
		t.Errorf("a plain error became %.200v", err)
	}
	_, err = b.Fetch(t.Context(), FetchRequest{}, nil)
	if !errors.As(err, &e) || e.Kind != Internal || e.Detail != "panic: oops" {
		t.Errorf("a panic became %v", err)
	}
	if _, err := b.Installed(t.Context(), "x"); err == nil {
		t.Error("the backend does not answer after a panic")
	}
}

func TestCancellationCrossesTheWire(t *testing.T) {
	stopped := make(chan error, 1)
	f := &fake{fetch: func(ctx context.Context, _ FetchRequest, progress func(Progress)) (Materials, error) {
		progress(Progress{Text: "started"})
		<-ctx.Done()
		stopped <- ctx.Err()
		return Materials{}, ctx.Err()
	}}
	b := dial(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := b.Fetch(ctx, FetchRequest{}, func(Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	select {
	case err := <-stopped:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the backend saw %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the backend was not told")
	}
}

func TestMessageLimit(t *testing.T) {
	f := &fake{changes: []Change{{Text: strings.Repeat("x", MaxMessage+1)}}}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer() // without the limit, as a hostile backend would be
	if err := (&Plugin{Impl: f}).GRPCServer(nil, s); err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	defer s.Stop()
	conn, err := grpc.NewClient("unix:"+l.Addr().String(),
		append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = NewClient(conn).Changes(t.Context(), Kernel{}, Kernel{})
	var e *Error
	if !errors.As(err, &e) || e.Kind != Internal || !strings.Contains(e.Detail, "larger than max") {
		t.Errorf("error %v, want one about the size", err)
	}
}

func TestDescribeCommand(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := command(&fake{}, []string{"describe"}, &out, &errOut); code != 0 {
		t.Errorf("exit code %d: %s", code, &errOut)
	}
	const want = "{\n  \"contract\": 1,\n  \"name\": \"fake\",\n  \"version\": \"1.2\",\n  \"systems\": [\n    \"a\",\n    \"b\"\n  ]\n}\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
	if code := command(&fake{err: errors.New("no")}, []string{"describe"}, &out, &errOut); code != 1 {
		t.Errorf("exit code %d after an error", code)
	}
	if code := command(&fake{}, []string{"other"}, &out, &errOut); code != 2 {
		t.Errorf("exit code %d for a wrong argument", code)
	}
}

// The committed code must be what backend.proto says.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Fatal("protoc is not installed: apt-get install protobuf-compiler")
	}
	dir := t.TempDir()
	if out, err := exec.Command("sh", "backendpb/generate.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("generating: %v: %s", err, out)
	}
	for _, name := range []string{"backend.pb.go", "backend_grpc.pb.go"} {
		want, err1 := os.ReadFile(filepath.Join(dir, name))
		got, err2 := os.ReadFile(filepath.Join("backendpb", name))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not current: run go generate ./plugins/...", name)
		}
	}
}
