// SPDX-License-Identifier: Apache-2.0

package lines

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestLayout(t *testing.T) {
	for _, tt := range []struct{ name, pre, post, want string }{
		{"equal", "a;\nb;\n", "a;\nb;\n", "a;\nb;\n"},
		{"changed in place", "a;\nb;\nc;\n", "a;\nx;\nc;\n", "a;\nx;\nc;\n"},
		{"inserted", "a;\nb;\n", "a;\nnew;\nb;\n", "a;\nnew;\n#line 2\nb;\n"},
		{"deleted", "a;\nb;\nc;\n", "a;\nc;\n", "a;\n#line 3\nc;\n"},
		{"at the end", "a;\nb;\n", "a;\nb;\nc;\n", "a;\nb;\nc;\n"},
		{"no newline", "a;\nb;", "a;\nn;\nb;", "a;\nn;\n#line 2\nb;"},
		{"parentheses", "a;\nf(1,\n  2,\n  3);\nb;\n", "a;\nf(1,\n  new,\n  2,\n  3);\nb;\n", "a;\nf(1,\n  new,\n  2,\n  3);\n#line 5\nb;\n"},
		{"name on another line", "a;\nf\n(1);\nb;\n", "a;\nn;\nf\n(1);\nb;\n", "a;\nn;\n#line 2\nf\n(1);\nb;\n"},
		{"between name and parenthesis", "f\n(1);\nb;\n", "f /* n\n*/\n(1);\nb;\n", "f /* n\n*/\n(1);\n#line 3\nb;\n"},
		{"comment", "/* a\n b\n c */\nd;\n", "/* a\n n\n b\n c */\nd;\n", "/* a\n n\n b\n c */\n#line 4\nd;\n"},
		{"comment in directive", "#define A /* a\n (b */\nd;\ne;\n", "#define A /* n\n n\n (b */\nd;\ne;\n", "#define A /* n\n n\n (b */\n#line 3\nd;\ne;\n"},
		{"slashes with splice", "// a \\\n (b\nc;\nd;\n", "// n \\\n n \\\n (b\nc;\nd;\n", "// n \\\n n \\\n (b\n#line 3\nc;\nd;\n"},
		{"macro", "#define M(x) \\\n one \\\n two\na;\n", "#define M(x) \\\n new \\\n one \\\n two\na;\n", "#define M(x) \\\n new \\\n one \\\n two\n#line 4\na;\n"},
		{"string", "s = \"(a \\\nb\";\nc;\n", "s = \"(n \\\n n \\\nb\";\nc;\n", "s = \"(n \\\n n \\\nb\";\n#line 3\nc;\n"},
		{"characters", "c = '(';\nd = '\"';\ne;\n", "n;\nc = '(';\nd = '\"';\ne;\n", "n;\n#line 1\nc = '(';\nd = '\"';\ne;\n"},
		{"group", "#if A\na;\n#endif\nb;\n", "#if A\nn;\na;\n#endif\nb;\n", "#if A\nn;\n#line 2\na;\n#endif\n#line 4\nb;\n"},
		{"else", "#if A\na;\n#else\nb;\n#endif\nc;\n", "#if A\nn;\na;\n#else\nb;\n#endif\nc;\n", "#if A\nn;\n#line 2\na;\n#else\n#line 4\nb;\n#endif\n#line 6\nc;\n"},
		{"group of arguments", "f(a,\n#if A\n b,\n#endif\n c);\nd;\n", "f(a,\n#if A\n n,\n b,\n#endif\n c);\nd;\n", "f(a,\n#if A\n n,\n b,\n#endif\n c);\n#line 6\nd;\n"},
		{"parenthesis in a group", "#if A\nif (a &&\n#else\nif (\n#endif\n b)\nc;\n", "#if A\nn;\nif (a &&\n#else\nif (\n#endif\n b)\nc;\n",
			"#if A\nn;\n#line 2\nif (a &&\n#else\n#line 4\nif (\n#endif\n b)\n#line 7\nc;\n"},
		{"odd parenthesis", "#if A\nf(\n#endif\na\n#if A\n)\n#endif\n;\n}\nb;\n", "#if A\nf(\n#endif\nn\na\n#if A\n)\n#endif\n;\n}\nb;\n",
			"#if A\nf(\n#endif\nn\na\n#if A\n)\n#endif\n;\n}\n#line 10\nb;\n"},
		{"own directives", "a;\nb;\n", "a;\n#line 7 \"y\"\nnew;\nb;\n", "a;\n#line 7 \"y\"\nnew;\nb;\n"},
		{"assembly", "\t.globl x\nx:\n\tnop\n", "\tnop\n\t.globl x\nx:\n\tnop\n", "\tnop\n\t.globl x\nx:\n\tnop\n"},
		{"not assembly", "struct s x = {\n\t.type = 1,\n\t.text = 2,\n};\n", "n;\nstruct s x = {\n\t.type = 1,\n\t.text = 2,\n};\n", "n;\n#line 1\nstruct s x = {\n\t.type = 1,\n\t.text = 2,\n};\n"},
		{"assembler's macro in a header", "#ifdef __ASSEMBLY__\n.macro M\nnop\n.endm\n#endif\na;\n", "#ifdef __ASSEMBLY__\n.macro M\nn\nnop\n.endm\n#endif\na;\n",
			"#ifdef __ASSEMBLY__\n.macro M\nn\nnop\n.endm\n#endif\n#line 6\na;\n"},
		{"raw string", "a = R\"(\n(\n)\";\nb;\n", "a = R\"(\nn\n(\n)\";\nb;\n", "a = R\"(\nn\n(\n)\";\nb;\n"},
		{"not a source", "#endif\na;\n", "#endif\nn;\na;\n", "#endif\nn;\na;\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(Layout([]byte(tt.pre), []byte(tt.post))); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestLayoutUnless(t *testing.T) {
	got := string(LayoutUnless([]byte("a;\nb;\n"), []byte("a;\nnew;\nb;\n")))
	if want := "a;\nnew;\n#ifndef " + Physical + "\n#line 1\n#endif\nb;\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

var ours = regexp.MustCompile(`^#line ([0-9]+)\n$`)

// check holds Layout to its promises: without the directives the text is post; and
// whatever branches are taken, each line of the taken ones that is shared with pre
// and before which a directive could stand has its old number.
func check(t *testing.T, pre, post []byte, rounds int) {
	t.Helper()
	out := Layout(pre, post)
	if !bytes.Equal(out, Layout(pre, post)) {
		t.Fatal("two runs, two results")
	}
	if ownNumbersAnywhere(pre) || ownNumbersAnywhere(post) {
		if !bytes.Equal(out, post) {
			t.Fatal("a file with #line of its own was changed")
		}
		return
	}
	var bare []byte
	for _, l := range split(out) {
		if !ours.Match(l) {
			bare = append(bare, l...)
		}
	}
	if !bytes.Equal(bare, post) {
		t.Fatalf("without directives the text is not post:\n%s", out)
	}
	if bytes.Equal(out, post) && !bytes.Contains(out, []byte("\n")) {
		return
	}
	src, numbers := scan(post), match(pre, post)
	last, old, new := 0, split(pre), split(post)
	for i, n := range numbers {
		if n != 0 && (n <= last || !bytes.Equal(old[n-1], new[i])) {
			t.Fatalf("line %d of post is taken for line %d of pre, after %d", i+1, n, last)
		}
		last = max(last, n)
	}
	if src.given || directives(src, numbers, 1) == nil && len(split(post)) > 0 && gaveUp(src) {
		return
	}
	for range rounds {
		interpret(t, out, src, numbers)
	}
}

func ownNumbersAnywhere(text []byte) bool {
	for _, l := range split(text) {
		if ownNumbers.Match(l) {
			return true
		}
	}
	return false
}

// gaveUp says whether conditionals do not pair up.
func gaveUp(src source) bool {
	depth := 0
	for _, l := range src.lines {
		switch l.cond {
		case condIf:
			depth++
		case condElif, condElse:
			if depth == 0 {
				return true
			}
		case condEnd:
			if depth--; depth < 0 {
				return true
			}
		}
	}
	return false
}

// interpret numbers the lines as a preprocessor does that takes branches at random.
func interpret(t *testing.T, out []byte, src source, numbers []int) {
	t.Helper()
	type level struct{ active, taken bool }
	stack := []level{{true, true}}
	number, at := 0, 0
	for _, l := range split(out) {
		number++
		top := &stack[len(stack)-1]
		if m := ours.FindSubmatch(l); m != nil {
			if top.active {
				n, _ := strconv.Atoi(string(m[1]))
				number = n - 1
			}
			continue
		}
		s := src.lines[at]
		if want := numbers[at]; top.active && want != 0 && s.safe && s.cond == condNone && number != want {
			t.Fatalf("line %d of post (%q) has number %d, had %d\n%s", at+1, l, number, want, out)
		}
		at++
		switch s.cond {
		case condIf:
			take := rand.IntN(2) == 0
			stack = append(stack, level{top.active && take, take})
		case condElif, condElse:
			outer := stack[len(stack)-2]
			take := !top.taken && (s.cond == condElse || rand.IntN(2) == 0)
			top.active, top.taken = outer.active && take, top.taken || take
		case condEnd:
			stack = stack[:len(stack)-1]
		}
	}
}

// pieces are lines that random sources are made of.
var pieces = strings.Split(`a();|b(1,|  2,|  3);|/* c|d */|#if A|#else|#elif B|#endif|#define M(x) \|  x \|  x + 1|}|"s (" f(|)|// e|f|(g);|'('|MACRO(|{|});|WARN_ON(__LINE__);| |#include "x.h"|x = y; /* z */`, "|")

func randomPair() (pre, post []byte) {
	for range rand.IntN(30) {
		l := pieces[rand.IntN(len(pieces))] + "\n"
		if rand.IntN(4) > 0 {
			pre = append(pre, l...)
		}
		if rand.IntN(6) > 0 {
			post = append(post, l...)
		}
	}
	return pre, post
}

func TestLayoutRandom(t *testing.T) {
	for range 5000 {
		pre, post := randomPair()
		check(t, pre, post, 4)
	}
}

func FuzzLayout(f *testing.F) {
	for range 20 {
		pre, post := randomPair()
		f.Add(pre, post)
	}
	f.Add([]byte("a\n#\\\nif\nb"), []byte("a\n\n#\\\nif\nb"))
	f.Fuzz(func(t *testing.T, pre, post []byte) { check(t, pre, post, 2) })
}

// TestPreprocessor compares with what the C preprocessor makes of it: the numbers
// that it gives to the lines that both sources share.
func TestPreprocessor(t *testing.T) {
	taken := 0
	for range 60 {
		pre, post := compilable()
		out := Layout(pre, post)
		if bytes.Equal(out, post) {
			continue
		}
		taken++
		for _, out := range [][]byte{out, LayoutUnless(pre, post)} {
			want, got := expand(t, pre), expand(t, out)
			for text, n := range want {
				if g, ok := got[text]; ok && g != n {
					t.Fatalf("%q has number %d, had %d\n--- pre\n%s\n--- laid out\n%s", text, g, n, pre, out)
				}
			}
		}
	}
	if taken < 12 {
		t.Errorf("only %d of the sources were laid out", taken)
	}
}

// compilable makes a source in which each line of code tells its number, and the
// same with lines inserted, changed and deleted.
func compilable() (pre, post []byte) {
	add := func(l string, both bool) {
		if both || rand.IntN(10) > 0 {
			pre = append(pre, l...)
		}
		if both || rand.IntN(10) > 0 {
			post = append(post, l...)
		}
		if rand.IntN(8) == 0 {
			post = append(post, "/* inserted */\n"...)
		}
	}
	depth := 0
	for i := range 60 {
		switch rand.IntN(7) {
		case 0:
			add(fmt.Sprintf("#if %d\n", rand.IntN(2)), true)
			depth++
		case 1:
			if depth > 0 {
				add("#endif\n", true)
				depth--
			}
		case 2:
			add(fmt.Sprintf("/* comment %d\n", i), true)
			add(" more\n */\n", true)
		default:
			add(fmt.Sprintf("probe_%d __LINE__;\n", i), false)
		}
	}
	for range depth {
		add("#endif\n", true)
	}
	return pre, post
}

var probe = regexp.MustCompile(`(probe_\d+) (\d+);`)

func expand(t *testing.T, text []byte) map[string]int {
	t.Helper()
	cmd := exec.Command("gcc", "-E", "-P", "-")
	cmd.Stdin = bytes.NewReader(text)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("preprocessing: %v\n%s", err, text)
	}
	m := make(map[string]int)
	for _, f := range probe.FindAllSubmatch(out, -1) {
		m[string(f[1])], _ = strconv.Atoi(string(f[2]))
	}
	return m
}

// TestObject compiles a source whose comment grew: nothing of the object changes,
// though its code holds line numbers.
func TestObject(t *testing.T) {
	pre := "/*\n * About.\n */\n#define WARN(x, ...) do { if (x) warn(__FILE__, __LINE__); } while (0)\nvoid warn(const char *, int);\n" +
		"void f(int a)\n{\n\tWARN(a > 1,\n\t     \"text\");\n#ifdef F\n\tWARN(a, 2);\n#else\n\tWARN(a, 1);\n#endif\n}\n"
	post := strings.Replace(strings.Replace(pre, " * About.\n", " * About\n * this\n * and that.\n", 1), "\tWARN(a > 1", "\t/* Why. */\n\tWARN(a > 1", 1)
	dir := t.TempDir()
	compile := func(text []byte) []byte {
		if err := os.WriteFile(filepath.Join(dir, "a.c"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("gcc", "-O2", "-c", "a.c", "-o", "a.o")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		obj, err := os.ReadFile(filepath.Join(dir, "a.o"))
		if err != nil {
			t.Fatal(err)
		}
		return obj
	}
	want := compile([]byte(pre))
	if bytes.Equal(want, compile([]byte(post))) {
		t.Fatal("the line numbers do not reach the object: the test shows nothing")
	}
	if !bytes.Equal(want, compile(Layout([]byte(pre), []byte(post)))) {
		t.Error("the object differs")
	}
}
