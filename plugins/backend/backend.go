// SPDX-License-Identifier: Apache-2.0

// Package backend is the contract between upsplice and the program that knows a
// distribution. A backend answers questions about kernel packages and puts the
// files that a build needs into a directory that it is given; it never touches
// the running kernel. Backends are separate processes, reached through
// hashicorp/go-plugin over gRPC.
package backend

import "context"

// Version of the contract; it is part of the go-plugin handshake.
const Version = 1

// Backend is what a distribution's program implements. All methods may be called
// concurrently and must return when ctx is done.
type Backend interface {
	// Describe says who the backend is and which systems it serves. It has no side
	// effects and needs no network.
	Describe(ctx context.Context) (Description, error)
	// Kernels picks the kernels among the packages of a transaction, in its order.
	// Removals and packages that hold no kernel are not in the result.
	Kernels(ctx context.Context, packages []Package) ([]Kernel, error)
	// Installed describes an installed kernel by its release (uname -r).
	// Error kind NotFound: no package of this system owns it.
	Installed(ctx context.Context, release string) (Kernel, error)
	// Available lists the kernels of a flavour, or of all flavours if it is empty, that
	// are installed or offered by the configured archives, oldest first.
	Available(ctx context.Context, flavour string) ([]Kernel, error)
	// Compare orders two kernels of one flavour by version, as the distribution
	// does: negative if a is older than b, 0 if they are the same version.
	Compare(ctx context.Context, a, b Kernel) (int, error)
	// Fetch puts what a build needs for kernel into dir, which the caller owns and
	// keeps: files already there are used, so that a fetch that was cut short goes
	// on where it stopped. progress may be nil and is never called concurrently.
	// Error kinds: NotFound (the archive no longer has it), Unavailable (network),
	// Corrupt, NoSpace.
	Fetch(ctx context.Context, req FetchRequest, progress func(Progress)) (Materials, error)
	// Changes returns the changelog entries after from up to to, the newest first.
	// Error kind NotFound: no changelog that reaches from one to the other is at hand.
	Changes(ctx context.Context, from, to Kernel) ([]Change, error)
	// Prebuilt returns ready splices for the step, none if there are none.
	Prebuilt(ctx context.Context, from, to Kernel, buildID string) ([]Prebuilt, error)
}

// Description of a backend.
type Description struct {
	Name    string   // "debian"
	Version string   // of the backend program
	Systems []string // os-release IDs it serves: "debian"
}

// Package is one package of a transaction. Files that are not on disk have an empty Path.
type Package struct {
	Name       string
	Arch       string // distribution's name
	OldVersion string // "" for a new package
	NewVersion string // "" for a removal
	Path       string // of the package file
}

// Kernel is one kernel of the distribution.
type Kernel struct {
	Release       string // uname -r: "6.1.0-56-cloud-amd64"
	Flavour       string // what stays the same between releases that replace each other: "6.1-cloud-amd64"
	Arch          string // GOARCH form: "amd64"
	Package       string // "linux-image-6.1.0-56-cloud-amd64"
	Version       string // of that package: "6.1.192-2"
	Source        string // source package: "linux"
	SourceVersion string // "6.1.192-2"
	Path          string // of the package file, if it is on disk
}

// Want names a part of Materials.
type Want string

const (
	WantSource  Want = "source"  // SourceArchive
	WantHeaders Want = "headers" // Headers, Kbuild, Config and, if it is known, Compiler
	WantImage   Want = "image"   // Image, Module
	WantModules Want = "modules" // Modules
)

// FetchRequest of Backend.Fetch.
type FetchRequest struct {
	Kernel Kernel
	Dir    string // absolute; the backend writes only below it
	Want   []Want // none means all
}

// Materials are paths below FetchRequest.Dir, except that Image, Module and Modules
// may be those of the installed kernel. Modules is the directory lib/modules/RELEASE
// with all modules below its directory kernel, compressed as the package has them.
type Materials struct {
	SourceArchive string
	Headers       string
	Kbuild        string
	Config        string
	Image         string
	Module        string
	Modules       string
	Compiler      string // command: "gcc-12"
}

// Progress of a fetch; Total 0 means unknown. Bytes.
type Progress struct {
	Text        string
	Done, Total int64
}

// Change is one changelog entry.
type Change struct {
	Version string // of the source package
	Text    string // one item, unwrapped
	CVEs    []string
}

// Prebuilt is a ready splice.
type Prebuilt struct {
	URL    string
	SHA256 string
}
