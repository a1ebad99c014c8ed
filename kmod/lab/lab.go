// SPDX-License-Identifier: Apache-2.0

// Package lab gets real kernel packages for tests, the demonstration and the
// benchmarks: what the apt archive of this machine offers at the time, never a
// version that is written down. Archives drop old versions, so a fixed one would
// stop to exist.
package lab

import (
	"fmt"
	"os"
	"path/filepath"
)

// Kernel is one binary kernel of the archive and the packages that belong to it.
// The paths are empty until Fetch has been called with the part they belong to.
type Kernel struct {
	Release string // "6.1.0-56-cloud-amd64"
	Flavour string // "cloud-amd64"
	Series  string // "6.1": the suffix of linux-source and linux-kbuild
	Version string // of the source package and the image, "6.1.192-2"

	HasSource  bool // the archive has linux-source of this version
	HasHeaders bool // the archive has the headers of this version

	ImageDeb, HeadersDeb, CommonDeb, KbuildDeb, SourceDeb string

	Root          string // unpacked image, headers, common headers and kbuild: boot/, lib/, usr/
	Vmlinuz       string // in Root
	HeadersDir    string // in Root: usr/src/linux-headers-RELEASE
	CommonDir     string // in Root: usr/src/linux-headers-…-common
	KbuildDir     string // in Root: usr/lib/linux-kbuild-…
	AnyModule     string // some shipped module in Root
	SourceArchive string // linux-source-….tar.xz, taken out of SourceDeb

	pkg packages
}

// packages are the names and versions that apt-get download takes.
type packages struct{ image, headers, common, kbuild, source pkgVersion }

type pkgVersion struct{ name, version string }

func (p pkgVersion) String() string { return p.name + "=" + p.version }

// Part is a group of packages of a kernel.
type Part string

// The parts of a kernel that Fetch can get.
const (
	Image   Part = "image"   // vmlinuz, config, modules
	Headers Part = "headers" // headers of the flavour, common headers, kbuild tools
	Source  Part = "source"  // the whole source archive, some 140 MB
)

// ArchiveError says that the package archive did not give what was asked for.
type ArchiveError struct {
	What   string // the command or package
	Remedy string
	Err    error
}

func (e *ArchiveError) Error() string {
	s := "asking the package archive for " + e.What
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

func (e *ArchiveError) Unwrap() error { return e.Err }

// Dir is where packages are kept: $UPSPLICE_LAB, else upsplice-lab in the user's
// cache directory. A kernel takes about 0.5 GB with its source.
func Dir() string {
	if d := os.Getenv("UPSPLICE_LAB"); d != "" {
		return d
	}
	d, err := os.UserCacheDir()
	if err != nil {
		// No $HOME, as in a unit or a container: a place that survives a reboot.
		d = "/var/tmp"
	}
	return filepath.Join(d, "upsplice-lab")
}

func (k Kernel) String() string { return fmt.Sprintf("%s (%s)", k.Release, k.Version) }
