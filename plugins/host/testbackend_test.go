// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/plugins/backend"
)

// The test binary is its own backend: the host starts a copy of it, and the
// variable says how it behaves.
const modeVar = "UPSPLICE_TEST_BACKEND"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(modeVar); mode {
	case "":
		os.Exit(m.Run())
	case "mute":
		time.Sleep(time.Hour)
	case "dead on arrival":
		fmt.Fprintln(os.Stderr, "cannot find my things")
		os.Exit(3)
	case "foreign socket":
		fmt.Println("1|1|unix|/run/other.sock|grpc")
		time.Sleep(time.Hour)
	case "chatty":
		for {
			fmt.Println(strings.Repeat("x", 1000))
		}
	default:
		backend.Serve(&testBackend{mode})
	}
}

type testBackend struct{ mode string }

func (b *testBackend) Describe(context.Context) (backend.Description, error) {
	if b.mode == "print environment" {
		return backend.Description{Name: "test", Version: strings.Join(os.Environ(), " "), Systems: []string{"test"}}, nil
	}
	return backend.Description{Name: "test", Version: "1", Systems: []string{"test"}}, nil
}

func (b *testBackend) Kernels(ctx context.Context, _ []backend.Package) ([]backend.Kernel, error) {
	switch b.mode {
	case "hang":
		select {} // deaf to ctx too
	case "crash":
		fmt.Fprintln(os.Stderr, "about to crash")
		go func() { panic("out of cheese") }()
		select {}
	case "flood":
		return make([]backend.Kernel, 100_000), nil
	case "error":
		return nil, &backend.Error{Kind: backend.NotFound, What: "x\x1b[31m", Detail: "d", Remedy: "r"}
	}
	return nil, nil
}

func (b *testBackend) Installed(_ context.Context, release string) (backend.Kernel, error) {
	return backend.Kernel{Release: release, Flavour: "f", Arch: "amd64", Package: "p", Version: fmt.Sprint(os.Getuid(), "-", os.Getgid()),
		Source: "s", SourceVersion: "1"}, nil
}

func (b *testBackend) Available(context.Context, string) ([]backend.Kernel, error) { return nil, nil }

func (b *testBackend) Compare(context.Context, backend.Kernel, backend.Kernel) (int, error) {
	return 0, nil
}

func (b *testBackend) Fetch(ctx context.Context, req backend.FetchRequest, progress func(backend.Progress)) (backend.Materials, error) {
	switch b.mode {
	case "hang":
		progress(backend.Progress{Text: "one"})
		select {}
	case "child":
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			return backend.Materials{}, err
		}
		progress(backend.Progress{Text: fmt.Sprint(cmd.Process.Pid)})
		select {}
	case "flood":
		for ctx.Err() == nil {
			progress(backend.Progress{Text: strings.Repeat("x", 1000), Done: 1})
			fmt.Fprintln(os.Stderr, strings.Repeat("log ", 1000))
		}
		return backend.Materials{}, ctx.Err()
	}
	for i := range 1000 {
		progress(backend.Progress{Text: "downloading", Done: int64(i + 1), Total: 1000})
	}
	path := filepath.Join(req.Dir, "source.tar.xz")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return backend.Materials{}, err
	}
	return backend.Materials{SourceArchive: path}, nil
}

func (b *testBackend) Changes(context.Context, backend.Kernel, backend.Kernel) ([]backend.Change, error) {
	return []backend.Change{{Version: "1", Text: strings.Repeat("\x07y", maxText)}}, nil
}

func (b *testBackend) Prebuilt(context.Context, backend.Kernel, backend.Kernel, string) ([]backend.Prebuilt, error) {
	return nil, nil
}

// publicDir is a temporary directory that other users can reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// install makes a backend directory with the test binary as "test".
func install(t *testing.T) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	if err := os.WriteFile(filepath.Join(dir, "test"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	sums := hex.EncodeToString(sum[:]) + "  test\n"
	if err := os.WriteFile(filepath.Join(dir, Checksums), []byte(sums), 0o644); err != nil {
		t.Fatal(err)
	}
	return Options{Dir: dir, Owner: os.Getuid(), TempDir: publicDir(t)}
}

func mode(opt Options, m string) Options {
	opt.Env = append(opt.Env, modeVar+"="+m)
	return opt
}
