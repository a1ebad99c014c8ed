// SPDX-License-Identifier: Apache-2.0

// Package conformance is the test kit for backend authors: it drives a backend
// through the whole contract of package backend over a real gRPC connection,
// errors, cancellation and concurrent calls included. A backend's tests call Run
// with the implementation, and RunProgram with the built program.
package conformance

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/host"
)

// Fixtures say what the backend under test knows. The backend's own test sets up
// an archive in which it is true.
type Fixtures struct {
	// System is an os-release ID that the backend serves.
	System string

	// Transaction has kernels and other packages, a removal among them; Kernels is
	// what the backend must make of it.
	Transaction []backend.Package
	Kernels     []backend.Kernel

	// From and To are two kernels of one flavour that can be fetched completely,
	// To the newer one. The changelog of To reaches back to From.
	From, To backend.Kernel

	// Gone is a kernel whose packages no archive has any more.
	Gone backend.Kernel
}

// Run tests an implementation.
func Run(t *testing.T, impl backend.Backend, fx Fixtures) {
	suite(t, host.Validate(Dial(t, impl)), fx)
}

// RunProgram tests a backend's program, started by the host like an installed
// one. env are further variables for it.
func RunProgram(t *testing.T, program string, env []string, fx Fixtures) {
	b, err := host.Open(t.Context(), "backend", Install(t, program, env))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	suite(t, b, fx)
}

// Dial serves impl on a socket and returns a client of it.
func Dial(t testing.TB, impl backend.Backend) backend.Backend {
	t.Helper()
	// The path of a socket must be short, which that of t.TempDir need not be.
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	s := backend.NewServer(nil)
	if err := (&backend.Plugin{Impl: impl}).GRPCServer(nil, s); err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("unix:"+l.Addr().String(),
		append(backend.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return backend.NewClient(conn)
}

// Install puts a program as "backend" into a backend directory with its checksum,
// and returns the options to open it with.
func Install(t testing.TB, program string, env []string) host.Options {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "backend"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	line := hex.EncodeToString(sum[:]) + "  backend\n"
	if err := os.WriteFile(filepath.Join(dir, host.Checksums), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	return host.Options{Dir: dir, Owner: os.Getuid(), Env: env}
}
