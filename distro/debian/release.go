// SPDX-License-Identifier: Apache-2.0

// Package debian knows how Debian names its kernels: the binary packages that
// are kernels, the release each boots as, the packages that belong to it, and
// the source it was built from. Rules are those of the source package linux
// (debian/rules.gen, debian/bin/gencontrol.py) as seen in its binary packages
// from Debian 11 to 13 and their backports.
package debian

import (
	"fmt"
	"regexp"
	"strings"
)

// Release is what uname -r prints, taken apart.
type Release struct {
	Upstream   string // "6.1.0", "6.12.107"
	ABI        string // what follows up to the flavour: "-56", "+deb12", "-0.deb12.4"; may be empty
	Featureset string // "rt"; "" for none
	Flavour    string // with the featureset: "amd64", "cloud-amd64", "rt-amd64"
}

// maxRelease is the kernel's __NEW_UTS_LEN.
const maxRelease = 64

// The part before the flavour is called the ABI name in the package; it is
// 6.1.0-56, 6.12.107+deb12, 6.12.12+bpo, 6.1.0-0.deb11.5, 5.10.0-0.bpo.4,
// 6.1.0-rc7, 6.12-rc6, 6.12.9. A second dash-separated number belongs to it, a
// flavour always has a letter first or is "686".
var releaseRE = regexp.MustCompile(`^([1-9][0-9]{0,2}\.[0-9]{1,4}(?:\.[0-9]{1,4})?)` +
	`((?:[+~][a-z0-9.]+)?(?:-(?:[0-9]+|0\.(?:bpo|deb[0-9]+)\.[0-9]+|trunk|rc[0-9]+))?)` +
	`-((?:(rt)-)?[a-z0-9]+(?:-[a-z0-9]+)*)$`)

// InvalidReleaseError says that a string is no release of a Debian kernel.
type InvalidReleaseError struct{ Release string }

func (e *InvalidReleaseError) Error() string {
	return fmt.Sprintf("%q is not the release of a Debian kernel, such as 6.1.0-56-amd64", e.Release)
}

// ParseRelease takes a release apart. Errors: *InvalidReleaseError.
func ParseRelease(s string) (Release, error) {
	if len(s) <= maxRelease {
		if m := releaseRE.FindStringSubmatch(s); m != nil {
			r := Release{Upstream: m[1], ABI: m[2], Flavour: m[3], Featureset: m[4]}
			// "6.12-amd64" is the name of a metapackage, no kernel boots as it.
			if strings.Count(r.Upstream, ".") == 2 || r.ABI != "" {
				return r, nil
			}
		}
		s = s[:min(len(s), maxRelease)]
	} else {
		s = s[:maxRelease]
	}
	return Release{}, &InvalidReleaseError{Release: s}
}

// String is the release as uname -r prints it.
func (r Release) String() string { return r.ABIName() + "-" + r.Flavour }

// ABIName is the release without the flavour; packages that all flavours share carry it.
func (r Release) ABIName() string { return r.Upstream + r.ABI }

// Series is the upstream series: "6.1".
func (r Release) Series() string {
	parts := strings.SplitN(r.Upstream, ".", 3)
	return parts[0] + "." + parts[1]
}

// imagePrefix starts the name of every package that holds a kernel image.
const imagePrefix = "linux-image-"

// KernelPackage returns the release of the kernel that a package of this name
// holds. ok is false for metapackages, debug symbols, templates and everything
// that is no kernel. The -unsigned variants hold the same kernel as the signed.
func KernelPackage(name string) (r Release, ok bool) {
	rest, ok := strings.CutPrefix(name, imagePrefix)
	if !ok {
		return Release{}, false
	}
	for _, other := range []string{"-dbg", "-dbgsym", "-signed-template"} {
		if strings.HasSuffix(rest, other) {
			return Release{}, false
		}
	}
	rest = strings.TrimSuffix(rest, "-unsigned")
	// A package name cannot hold what uname prints for a release candidate.
	rest = strings.Replace(rest, "~rc", "-rc", 1)
	r, err := ParseRelease(rest)
	return r, err == nil
}

// ImagePackages are the names a package that holds kernel r can have, the usual one first.
func ImagePackages(r Release) []string {
	name := imagePrefix + packageForm(r.String())
	return []string{name, name + "-unsigned"}
}

func packageForm(release string) string {
	if i := strings.Index(release, "-rc"); i > 0 && strings.Count(release[:i], "-") == 0 {
		return release[:i] + "~rc" + release[i+3:]
	}
	return release
}

// goArch maps Debian's architecture names to Go's.
var goArch = map[string]string{
	"amd64": "amd64", "arm64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386",
	"loong64": "loong64", "mips64el": "mips64le", "mipsel": "mipsle", "ppc64el": "ppc64le",
	"riscv64": "riscv64", "s390x": "s390x",
}

// GOARCH returns Go's name of a Debian architecture, "" for one it has none for.
func GOARCH(debian string) string { return goArch[debian] }
