// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/upsplice/upsplice/distro/deb822"
)

// HeadersPackage is the package with the generated headers and the config of a kernel.
func HeadersPackage(r Release) string { return "linux-headers-" + packageForm(r.String()) }

// SourcePackage is the binary package with the patched source as one archive. It
// is shared by all kernels of a series: the version chooses.
func SourcePackage(r Release) string { return "linux-source-" + r.Series() }

// SourceArchive is the path of the archive in the source package, without the
// ending of its compression.
func SourceArchive(r Release) string { return "usr/src/linux-source-" + r.Series() + ".tar" }

// Companions are the packages that building against a kernel needs.
type Companions struct {
	Headers string          // "linux-headers-6.1.0-56-cloud-amd64"
	Common  deb822.Relation // "linux-headers-6.1.0-56-common"
	Kbuild  deb822.Relation // "linux-kbuild-6.1 (>= 6.1.192-2)"

	// Compiler is the command the kernel was compiled with, "gcc-12"; "" if the
	// package names none.
	Compiler string
}

var (
	commonRE   = regexp.MustCompile(`^linux-headers-[a-z0-9.+~-]+-common(-[a-z0-9]+)?$`)
	kbuildRE   = regexp.MustCompile(`^linux-kbuild-[a-z0-9.+~-]+$`)
	compilerRE = regexp.MustCompile(`^(?:linux-compiler-)?(gcc-[1-9][0-9]*)(?:-[a-z0-9-]+)?$`)
)

// CompanionsOf reads the companions from the control fields of the headers
// package: their names do not follow from the release alone.
func CompanionsOf(headers deb822.Paragraph) (Companions, error) {
	c := Companions{Headers: headers.Get("Package")}
	for _, alternatives := range deb822.Relations(headers.Get("Depends")) {
		first := alternatives[0]
		switch {
		case commonRE.MatchString(first.Name):
			c.Common = first
		case kbuildRE.MatchString(first.Name):
			c.Kbuild = first
		default:
			if m := compilerRE.FindStringSubmatch(first.Name); m != nil {
				c.Compiler = m[1]
			}
		}
	}
	if c.Common.Name == "" {
		return c, fmt.Errorf("reading control of %s: Depends names no common headers package", c.Headers)
	}
	if c.Kbuild.Name == "" {
		return c, fmt.Errorf("reading control of %s: Depends names no kbuild package", c.Headers)
	}
	return c, nil
}

// UsualCompanions are the names that the common headers and kbuild packages of a
// kernel can be expected to have. CompanionsOf knows them for sure.
func UsualCompanions(r Release) []string {
	common := "linux-headers-" + packageForm(r.ABIName()+"-common")
	if r.Featureset != "" {
		common += "-" + r.Featureset
	}
	return []string{common, "linux-kbuild-" + r.Series(), "linux-kbuild-" + r.ABIName()}
}

// maxKernelVariables limits the file, in bytes; real ones have 300.
const maxKernelVariables = 64 << 10

var ccRE = regexp.MustCompile(`(?:^|[\s)])(gcc-[1-9][0-9]*)\s*$`)

// Compiler reads the compiler's command from the .kernelvariables file of the
// headers package, "" if it names none.
func Compiler(r io.Reader) (string, error) {
	s := bufio.NewScanner(io.LimitReader(r, maxKernelVariables))
	cc := ""
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), "=")
		if !ok || strings.Trim(name, " :\t") != "CC" {
			continue
		}
		if m := ccRE.FindStringSubmatch(value); m != nil {
			cc = m[1]
		}
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("reading .kernelvariables: %w", err)
	}
	return cc, nil
}
