// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/distro/changelog"
	"github.com/upsplice/upsplice/distro/deb822"
	"github.com/upsplice/upsplice/distro/debversion"
)

// Source is a source package in one version.
type Source struct {
	Name    string // "linux", "linux-6.12" for a backport
	Version string // "6.1.192-1"
}

var (
	linuxRE  = regexp.MustCompile(`^linux(-[1-9][0-9]*\.[0-9]+)?$`)
	signedRE = regexp.MustCompile(`^linux-signed(-[1-9][0-9]*\.[0-9]+)?-[a-z0-9]+$`)
)

// SourceOf says from which kernel source a binary package was built. The signed
// images have a source package of their own, which holds only signatures: for
// them it is Built-Using, and where that is missing the version of the binary,
// which the signed packages take over.
func SourceOf(p deb822.Paragraph) (Source, error) {
	for _, alternatives := range deb822.Relations(p.Get("Built-Using")) {
		if r := alternatives[0]; linuxRE.MatchString(r.Name) && r.Op == "=" {
			return valid(Source{r.Name, r.Version})
		}
	}
	name, version := p.Get("Package"), p.Get("Version")
	if field := p.Get("Source"); field != "" {
		name, _, _ = strings.Cut(field, " ")
		if _, in, ok := strings.Cut(field, "("); ok && !signedRE.MatchString(name) {
			version = strings.TrimSuffix(strings.TrimSpace(in), ")")
		}
	}
	if m := signedRE.FindStringSubmatch(name); m != nil {
		name = "linux" + m[1]
	}
	if !linuxRE.MatchString(name) {
		return Source{}, fmt.Errorf("reading control of %s: source %q is no kernel", p.Get("Package"), name)
	}
	return valid(Source{name, version})
}

// SourceEntry turns the changelog entry of a signed package, whose version has a
// "+" where the kernel source's has "-" and whose first item only says what was
// signed, into the one of the source. Other entries are returned as they are.
func SourceEntry(e changelog.Entry) changelog.Entry {
	m := signedRE.FindStringSubmatch(e.Source)
	if m == nil {
		return e
	}
	e.Source = "linux" + m[1]
	e.Version = strings.Replace(e.Version, "+", "-", 1)
	e.Items = slices.DeleteFunc(slices.Clone(e.Items), func(it changelog.Item) bool {
		return strings.HasPrefix(it.Text, "Sign kernel from ")
	})
	return e
}

func valid(s Source) (Source, error) {
	if _, err := debversion.Parse(s.Version); err != nil {
		return Source{}, fmt.Errorf("reading the source of a kernel: %w", err)
	}
	return s, nil
}

// Relation of a kernel to the running one.
type Relation string

const (
	Update       Relation = "update"        // newer, same flavour and series: what a splice is for
	Same         Relation = "same"          // the version that runs
	Older        Relation = "older"         // a downgrade
	OtherFlavour Relation = "other flavour" // would not be booted in the running one's place
	OtherSeries  Relation = "other series"  // 6.12 where 6.1 runs: another kernel, not a newer version
)

// Compare says how a candidate (release and package version) relates to the
// running kernel. A new ABI name is an update all the same. Errors:
// *InvalidReleaseError, *debversion.InvalidError.
func Compare(runningRelease, runningVersion, release, version string) (Relation, error) {
	run, err := ParseRelease(runningRelease)
	if err != nil {
		return "", err
	}
	cand, err := ParseRelease(release)
	if err != nil {
		return "", err
	}
	d, err := debversion.Compare(version, runningVersion)
	switch {
	case err != nil:
		return "", err
	case run.Flavour != cand.Flavour:
		return OtherFlavour, nil
	case run.Series() != cand.Series():
		return OtherSeries, nil
	case d > 0:
		return Update, nil
	case d < 0:
		return Older, nil
	}
	return Same, nil
}
