// SPDX-License-Identifier: Apache-2.0

package debversion

import (
	"bufio"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func lines(t testing.TB, name string) []string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if l := s.Text(); l != "" && l[0] != '#' {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no cases", name)
	}
	return out
}

var sign = map[string]int{"<": -1, "=": 0, ">": 1}

func TestCompare(t *testing.T) {
	for _, l := range lines(t, "testdata/compare") {
		f := strings.Fields(l)
		want, ok := sign[f[1]]
		if !ok || len(f) != 3 {
			t.Fatalf("bad line %q", l)
		}
		for _, c := range []struct {
			a, b string
			want int
		}{{f[0], f[2], want}, {f[2], f[0], -want}} {
			if got, err := Compare(c.a, c.b); err != nil || got != c.want {
				t.Errorf("Compare(%s, %s) = %d, %v; want %d", c.a, c.b, got, err, c.want)
			}
		}
	}
}

func TestInvalid(t *testing.T) {
	for _, l := range append(lines(t, "testdata/invalid"), "", " 1", "1 ", "1\n", strings.Repeat("1.", 200)) {
		_, err := Parse(l)
		var ie *InvalidError
		if !errors.As(err, &ie) {
			t.Errorf("Parse(%q): error %v, want an InvalidError", l, err)
		}
	}
}

// dpkg is the authority. It compares one pair per process, so the pairs go
// through one shell.
func dpkgCompare(t *testing.T, pairs [][2]string) []int {
	t.Helper()
	var script strings.Builder
	for _, p := range pairs {
		script.WriteString("dpkg --compare-versions '" + p[0] + "' lt '" + p[1] + "' 2>&1 && echo -1 || " +
			"{ dpkg --compare-versions '" + p[0] + "' eq '" + p[1] + "' 2>&1 && echo 0 || echo 1; }\n")
	}
	cmd := exec.Command("sh")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running dpkg --compare-versions: %v", err)
	}
	var res []int
	for _, l := range strings.Fields(string(out)) {
		n, ok := map[string]int{"-1": -1, "0": 0, "1": 1}[l]
		if !ok {
			t.Fatalf("dpkg said %q", out)
		}
		res = append(res, n)
	}
	if len(res) != len(pairs) {
		t.Fatalf("dpkg gave %d answers for %d pairs", len(res), len(pairs))
	}
	return res
}

func TestAgainstDpkg(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Fatal("no dpkg on this system to compare with")
	}
	var pairs [][2]string
	for _, l := range lines(t, "testdata/compare") {
		f := strings.Fields(l)
		pairs = append(pairs, [2]string{f[0], f[2]})
	}
	// Few letters and short strings make near misses likely.
	const alphabet = "0019a~+.-zA"
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func() string {
		for {
			b := []byte{"0129"[rnd.IntN(4)]}
			for range rnd.IntN(8) {
				b = append(b, alphabet[rnd.IntN(len(alphabet))])
			}
			if _, err := Parse(string(b)); err == nil {
				return string(b)
			}
		}
	}
	for range 400 {
		a, b := random(), random()
		if rnd.IntN(2) == 0 { // a small change of the same version
			b = a + string(alphabet[rnd.IntN(len(alphabet))]) + "1"
			if _, err := Parse(b); err != nil {
				b = a
			}
		}
		pairs = append(pairs, [2]string{a, b})
	}
	for i, want := range dpkgCompare(t, pairs) {
		p := pairs[i]
		if got, err := Compare(p[0], p[1]); err != nil || got != want {
			t.Errorf("Compare(%s, %s) = %d, %v; dpkg says %d", p[0], p[1], got, err, want)
		}
	}
}

func FuzzCompare(f *testing.F) {
	for _, l := range lines(f, "testdata/compare") {
		c := strings.Fields(l)
		f.Add(c[0], c[2])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		v, err := Parse(a)
		if err != nil {
			return
		}
		w, err := Parse(b)
		if err != nil {
			return
		}
		if v.Compare(w) != -w.Compare(v) {
			t.Errorf("%s and %s: the comparison is not antisymmetric", a, b)
		}
		if v.Compare(v) != 0 {
			t.Errorf("%s differs from itself", a)
		}
	})
}
