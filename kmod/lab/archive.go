// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// metapackage depends on the newest kernel of the distribution's own series;
// backported series live in the same archive.
const metapackage = "linux-image-cloud-amd64"

var (
	imageName    = regexp.MustCompile(`^linux-image-((\d+\.\d+)[^-]*(?:-\d+)?)-(amd64|cloud-amd64)$`)
	relevantName = regexp.MustCompile(`^linux-(image|headers|kbuild|source)-`)
	relation     = regexp.MustCompile(`(linux[-a-z0-9.+]*)(?:\s*\(\s*([<>=]+)\s*([^)\s]+)\s*\))?`)
)

// Flavours that Debian builds for x86-64. The first is what the tests use unless
// they say otherwise: it is the smaller one.
const (
	Cloud   = "cloud-amd64"
	Generic = "amd64"
)

// List returns the cloud-amd64 kernels that the archive has, oldest first.
func List(ctx context.Context) ([]Kernel, error) { return ListFlavour(ctx, Cloud) }

// ListFlavour returns the kernels of a flavour that the archive has, oldest first.
func ListFlavour(ctx context.Context, flavour string) ([]Kernel, error) {
	all, _, err := list(ctx)
	return slices.DeleteFunc(all, func(k Kernel) bool { return k.Flavour != flavour }), err
}

// Backport returns the newest kernel of the newest series that is not the
// distribution's own, among those with headers and source.
func Backport(ctx context.Context, flavour string) (Kernel, error) {
	all, series, err := list(ctx)
	if err != nil {
		return Kernel{}, err
	}
	for _, k := range slices.Backward(all) {
		if k.Flavour == flavour && k.Series != series && k.HasHeaders && k.HasSource {
			return k, nil
		}
	}
	return Kernel{}, &ArchiveError{What: flavour + " kernels of a series other than " + series, Remedy: "add the backports or the security archive to the sources of apt"}
}

// Newest returns the newest kernel of the distribution's own series.
func Newest(ctx context.Context) (Kernel, error) {
	own, err := ownSeries(ctx)
	if err != nil {
		return Kernel{}, err
	}
	return own[len(own)-1], nil
}

// ownSeries returns the kernels of the series that the metapackage depends on, oldest first.
func ownSeries(ctx context.Context) ([]Kernel, error) {
	all, series, err := list(ctx)
	if err != nil {
		return nil, err
	}
	own := slices.DeleteFunc(all, func(k Kernel) bool { return k.Series != series || k.Flavour != Cloud })
	if len(own) == 0 {
		return nil, &ArchiveError{What: "cloud-amd64 kernels of series " + series}
	}
	return own, nil
}

func list(ctx context.Context) (all []Kernel, series string, err error) {
	stanzas, err := records(ctx)
	if err != nil {
		return nil, "", err
	}
	if !hasImages(stanzas) {
		if stanzas, err = firstUpdate(ctx); err != nil {
			return nil, "", err
		}
	}
	all, series = kernels(stanzas)
	if len(all) == 0 {
		return nil, "", &ArchiveError{What: "linux-image-*-cloud-amd64", Remedy: "the sources in /etc/apt must have Debian's kernels for amd64"}
	}
	var sortErr error
	slices.SortStableFunc(all, func(a, b Kernel) int {
		c, err := compareVersions(ctx, a.Version, b.Version)
		if err != nil {
			sortErr = err
		}
		return c
	})
	return all, series, sortErr
}

func hasImages(stanzas []stanza) bool {
	return slices.ContainsFunc(stanzas, func(s stanza) bool { return imageName.MatchString(s["Package"]) })
}

// firstUpdate gets the package lists that a fresh machine does not have yet. apt
// refuses to do that twice at once, so test processes wait for each other.
func firstUpdate(ctx context.Context) ([]stanza, error) {
	unlock, err := lockDir(ctx, "lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	stanzas, err := records(ctx)
	if err != nil || hasImages(stanzas) {
		return stanzas, err
	}
	if err := update(ctx); err != nil {
		return nil, err
	}
	return records(ctx)
}

// records returns the records of all versions of all kernel packages that apt knows.
func records(ctx context.Context) ([]stanza, error) {
	names, err := output(ctx, "", "apt-cache", "pkgnames", "linux-")
	if err != nil {
		return nil, err
	}
	args := []string{"show"}
	for _, n := range strings.Fields(string(names)) {
		if relevantName.MatchString(n) && !strings.HasSuffix(n, "-dbg") && !strings.HasSuffix(n, "-unsigned") {
			args = append(args, n)
		}
	}
	if len(args) == 1 {
		return nil, nil
	}
	slices.Sort(args[1:])
	out, err := output(ctx, "", "apt-cache", args...)
	if err != nil {
		return nil, err
	}
	return parseStanzas(bytes.NewReader(out))
}

// stanza is one record of a Packages file: field name to first line.
type stanza map[string]string

func parseStanzas(r io.Reader) ([]stanza, error) {
	var all []stanza
	cur := stanza{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	flush := func() {
		if len(cur) > 0 {
			all = append(all, cur)
			cur = stanza{}
		}
	}
	for sc.Scan() {
		line := sc.Text()
		switch {
		case line == "":
			flush()
		case line[0] == ' ' || line[0] == '\t':
			// Continuation lines exist only in fields that nobody asks for here.
		default:
			if name, value, ok := strings.Cut(line, ":"); ok {
				cur[name] = strings.TrimSpace(value)
			}
		}
	}
	flush()
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading package records: %w", err)
	}
	return all, nil
}

// relationTo finds the relation to a package called prefix… in a dependency field.
func relationTo(field, prefix string) (pkgVersion, bool) {
	for _, m := range relation.FindAllStringSubmatch(field, -1) {
		if strings.HasPrefix(m[1], prefix) {
			return pkgVersion{m[1], m[3]}, true
		}
	}
	return pkgVersion{}, false
}

// kernels puts the packages of each image together. Stanzas come newest first for
// each name, as apt-cache prints them.
func kernels(stanzas []stanza) (all []Kernel, series string) {
	byName := map[string][]stanza{}
	for _, s := range stanzas {
		byName[s["Package"]] = append(byName[s["Package"]], s)
	}
	find := func(name, version string) (stanza, bool) {
		for _, s := range byName[name] {
			if s["Version"] == version {
				return s, true
			}
		}
		return nil, false
	}
	if meta := byName[metapackage]; len(meta) > 0 {
		if dep, ok := relationTo(meta[0]["Depends"], "linux-image-"); ok {
			if m := imageName.FindStringSubmatch(dep.name); m != nil {
				series = m[2]
			}
		}
	}
	for _, s := range stanzas {
		m := imageName.FindStringSubmatch(s["Package"])
		// Metapackages are called the same way, but hold no kernel.
		if m == nil || strings.Contains(s["Depends"], "linux-image-") {
			continue
		}
		k := Kernel{
			Release: m[1] + "-" + m[3],
			Flavour: m[3],
			Series:  m[2],
			Version: s["Version"],
		}
		if b, ok := relationTo(s["Built-Using"], "linux"); ok && b.name == "linux" && b.version != "" {
			k.Version = b.version
		}
		k.pkg.image = pkgVersion{s["Package"], s["Version"]}
		k.pkg.source = pkgVersion{"linux-source-" + k.Series, k.Version}
		_, k.HasSource = find(k.pkg.source.name, k.Version)
		k.pkg.headers = pkgVersion{"linux-headers-" + k.Release, k.Version}
		if h, ok := find(k.pkg.headers.name, k.Version); ok {
			common, okc := relationTo(h["Depends"], "linux-headers-")
			kbuild, okk := relationTo(h["Depends"], "linux-kbuild-")
			if okc && okk && len(byName[kbuild.name]) > 0 {
				k.pkg.common = pkgVersion{common.name, k.Version}
				// Only the newest kbuild stays in an archive; it serves all versions of its series.
				k.pkg.kbuild = pkgVersion{kbuild.name, byName[kbuild.name][0]["Version"]}
				k.HasHeaders = true
			}
		}
		all = append(all, k)
	}
	return all, series
}

func compareVersions(ctx context.Context, a, b string) (int, error) {
	for _, op := range []struct {
		name string
		sign int
	}{{"lt", -1}, {"eq", 0}} {
		err := exec.CommandContext(ctx, "dpkg", "--compare-versions", a, op.name, b).Run()
		var exit *exec.ExitError
		switch {
		case err == nil:
			return op.sign, nil
		case errors.As(err, &exit) && exit.ExitCode() == 1:
		default:
			return 0, fmt.Errorf("comparing versions %s and %s: %w", a, b, err)
		}
	}
	return 1, nil
}

func update(ctx context.Context) error {
	_, err := output(ctx, "", "apt-get", "-q", "update")
	return err
}

// output runs a command of apt or dpkg in dir.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	// Messages are shown to people who look for them in English.
	cmd.Env = append(cmd.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		what := name
		if len(args) > 0 {
			what += " " + args[0]
		}
		remedy := ""
		if errors.Is(err, exec.ErrNotFound) {
			remedy = "this needs a Debian system"
		}
		if msg := lastLines(stderr.String(), 3); msg != "" {
			err = fmt.Errorf("%w: %s", err, msg)
		}
		return nil, &ArchiveError{What: what, Remedy: remedy, Err: err}
	}
	return stdout.Bytes(), nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}
