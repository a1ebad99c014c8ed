// SPDX-License-Identifier: Apache-2.0

package testarchive

import (
	"path/filepath"

	"github.com/upsplice/upsplice/plugins/backend"
	"github.com/upsplice/upsplice/plugins/conformance"
)

// Deb is the path of a package file.
func (a *Archive) Deb(name, version, arch string) string {
	return filepath.Join(a.Pool, name+"_"+version+"_"+arch+".deb")
}

// Fixtures of the conformance kit. They fit a backend without a snapshot archive.
func (a *Archive) Fixtures() conformance.Fixtures {
	image := "linux-image-" + NewRelease
	path := a.Deb(image, NewVersion, "amd64")
	withPath := Kernel(NewRelease, NewVersion)
	withPath.Path = path
	return conformance.Fixtures{
		System: "debian",
		Transaction: []backend.Package{
			{Name: "hello", Arch: "amd64", OldVersion: "2.10-2", NewVersion: "2.10-3"},
			{Name: image, Arch: "amd64", NewVersion: NewVersion, Path: path},
			{Name: "linux-image-cloud-amd64", Arch: "amd64", OldVersion: OldVersion, NewVersion: NewVersion},
			{Name: "linux-image-" + OldRelease, Arch: "amd64", OldVersion: OldVersion},
			{Name: "linux-image-" + OtherRelease, Arch: "amd64", NewVersion: OtherVersion},
			// Neither on disk nor in the index: the name and version must do.
			{Name: "linux-image-" + GoneRelease, Arch: "amd64", NewVersion: GoneVersion, Path: "/nonexistent.deb"},
			{Name: "linux-headers-" + NewRelease, Arch: "amd64", NewVersion: NewVersion},
		},
		Kernels: []backend.Kernel{withPath, Kernel(OtherRelease, OtherVersion), Kernel(GoneRelease, GoneVersion)},
		From:    Kernel(OldRelease, OldVersion),
		To:      Kernel(NewRelease, NewVersion),
		Gone:    Kernel(GoneRelease, GoneVersion),
	}
}
