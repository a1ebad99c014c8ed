// SPDX-License-Identifier: Apache-2.0

package lines

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/tree"
)

// TestKernelSources moves the lines of real sources by inserting and deleting
// between statements, and compares what the preprocessor makes of them with the
// kernel's own headers: with all macros expanded, each line has its old number.
func TestKernelSources(t *testing.T) {
	k := lab.NeedNewest(t, lab.Headers, lab.Source)
	files := sources(t, k.SourceArchive, 12)
	if len(files) < 12 {
		t.Fatalf("only %d sources in %s", len(files), k.SourceArchive)
	}
	directives, shown := 0, false
	for name, pre := range files {
		post := moved(pre)
		out := Layout(pre, post)
		want, got := preprocess(t, &k, name, pre), preprocess(t, &k, name, out)
		directives += bytes.Count(out, []byte("#line ")) - bytes.Count(pre, []byte("#line "))
		for n, text := range want {
			if got[n] != text {
				t.Errorf("%s: line %d is %q, was %q", name, n, got[n], text)
				break
			}
		}
		if !shown {
			bare := preprocess(t, &k, name, post)
			for n, text := range want {
				shown = shown || bare[n] != text
			}
		}
	}
	if directives < 20 || !shown {
		t.Errorf("%d directives: too few to show anything", directives)
	}
}

// sources reads the first C files of a directory of the archive.
func sources(t *testing.T, archive string, n int) map[string][]byte {
	t.Helper()
	r, err := tree.OpenTar(t.Context(), archive)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	files := make(map[string][]byte)
	for tr := tar.NewReader(r); len(files) < n; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if dir := filepath.Dir(name); filepath.Ext(name) != ".c" || dir != "block" && dir != "crypto" && dir != "fs" {
			continue
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		// Their own headers are not at hand, only those that all share.
		files[name] = ownHeader.ReplaceAll(text, []byte("/* a header */"))
	}
	return files
}

var (
	ownHeader = regexp.MustCompile(`(?m)^#include "[^"]*"`)
	code      = regexp.MustCompile(`[A-Za-z0-9]`)
)

var statement = regexp.MustCompile(`^(\t[^\t].*;|\}|)\n$`)

// moved inserts lines after ends of statements and functions, and deletes empty
// lines there.
func moved(pre []byte) []byte {
	var post []byte
	comment, last := false, []byte("\n")
	for _, l := range split(pre) {
		between := !comment && statement.Match(last)
		switch {
		case between && rand.IntN(12) == 0:
			post = append(post, "\n/* inserted\n */\n"...)
		case between && len(l) == 1 && rand.IntN(3) == 0:
			continue
		}
		post = append(post, l...)
		if i := bytes.LastIndex(l, []byte("/*")); i >= 0 {
			comment = true
		}
		if i := bytes.LastIndex(l, []byte("*/")); i >= 0 && i > bytes.LastIndex(l, []byte("/*")) {
			comment = false
		}
		last = l
	}
	return post
}

var marker = regexp.MustCompile(`^# (\d+) "([^"]*)"`)

// preprocess returns what is left of the file's own lines, by number.
func preprocess(t *testing.T, k *lab.Kernel, name string, text []byte) map[int]string {
	t.Helper()
	args := strings.Fields(`-E -x c -nostdinc -D__KERNEL__ -DKBUILD_MODNAME="x" -DKBUILD_MODFILE="x" -DKBUILD_BASENAME="x" -std=gnu11 -O2 -DCC_USING_FENTRY`)
	for _, dir := range [][2]string{
		{"arch/x86/include", "arch/x86/include/generated"},
		{"include", "include"},
		{"arch/x86/include/uapi", "arch/x86/include/generated/uapi"},
		{"include/uapi", "include/generated/uapi"},
	} {
		args = append(args, "-I"+filepath.Join(k.CommonDir, dir[0]), "-I"+filepath.Join(k.HeadersDir, dir[1]))
	}
	for _, h := range []string{"compiler-version.h", "kconfig.h", "compiler_types.h"} {
		args = append(args, "-include", filepath.Join(k.CommonDir, "include/linux", h))
	}
	cmd := exec.Command("gcc", append(args, "-")...)
	cmd.Stdin = bytes.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("preprocessing %s: %v\n%s", name, err, stderr.Bytes())
	}
	lines := make(map[int]string)
	number, own := 0, false
	for _, l := range strings.Split(string(out), "\n") {
		if m := marker.FindStringSubmatch(l); m != nil {
			number, _ = strconv.Atoi(m[1])
			own = m[2] == "<stdin>"
			continue
		}
		// A brace may be taken for another one: nothing is compiled from its number.
		if own && code.MatchString(l) {
			lines[number] += strings.Join(strings.Fields(l), " ") + " "
		}
		number++
	}
	return lines
}
