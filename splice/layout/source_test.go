// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// declarations have each form of declarator that hides a name.
const declarations = `# 1 "file.c"
typedef unsigned int u32; typedef struct tagged { u32 inside; struct T_a *p; } made;
struct __attribute__((packed)) early { int x; } late = { T_b }, *second;
struct result *plain(u32 a, int (*callback)(u32 T_c)) { return a + '"' + "x\\"}y"; }
static inline __attribute__((unused)) __attribute__((section("s"))) u32 attributed(void) __attribute__((cold));
u32 (*returns_pointer(int T_d))(int) { return ({ if (1) { inner(T_e); } 0; }); }
u32 (parenthesised)(int x) { return sizeof(T_f); }
int (*pointer)(void) = T_g, other = sizeof(T_h), array[T_i] = { T_j, [2] = T_k };
static const u32 folded __attribute__((aligned(sizeof(T_l)))) = sizeof(struct T_m);
extern struct T_n *somewhere;
extern __typeof__(T_o) typed;
enum { CONST = sizeof(struct T_p) };
asm(".text; }");
int caller(void) { return plain(folded, 0); }
struct T_q { int z; } *of_type(void) { return 0; }
`

func TestReadSource(t *testing.T) {
	s, err := readSource([]byte(declarations))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, has, not string }{
		{"late", "T_b early", "x"},
		{"plain", "result u32 callback T_c a", "inside x"},
		{"returns_pointer", "T_d T_e inner", ""},
		{"parenthesised", "T_f x", ""},
		{"caller", "plain folded T_m T_l result", "T_e"},
		{"of_type", "", "z"},
		{"made", "", "inside"},
	} {
		var got map[string]bool
		if got, _ = s.names(tt.name); got == nil {
			got = map[string]bool{}
			for _, i := range s.named[tt.name] {
				for _, id := range s.items[i].idents {
					got[id] = true
				}
			}
		}
		for _, want := range strings.Fields(tt.has) {
			if !got[want] {
				t.Errorf("%s does not mention %s: %v", tt.name, want, slices.Sorted(maps.Keys(got)))
			}
		}
		for _, not := range strings.Fields(tt.not) {
			if got[not] {
				t.Errorf("%s mentions %s: %v", tt.name, not, slices.Sorted(maps.Keys(got)))
			}
		}
	}
	for name, want := range map[string]string{"pointer": "T_g", "other": "T_h", "array": "T_i T_j T_k", "somewhere": "T_n", "typed": "T_o", "second": "early"} {
		var got []string
		for _, i := range s.named[name] {
			got = append(got, s.items[i].idents...)
		}
		for _, w := range strings.Fields(want) {
			if !slices.Contains(got, w) {
				t.Errorf("%s does not mention %s: %v", name, w, got)
			}
		}
	}
	for name, body := range map[string]bool{"plain": true, "attributed": false, "parenthesised": true, "of_type": true, "nowhere": false, "pointer": false} {
		if _, ok := s.names(name); ok != body {
			t.Errorf("%s has a body: %v", name, ok)
		}
	}
	for _, bad := range []string{"int f(void) {", "int f(void));", "int a[3;", "int x"} {
		if _, err := readSource([]byte(bad)); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: error %v", bad, err)
		}
	}
	if diff := cmp.Diff([]string{"a", "b2", "_c"}, identifiers("a 12b 0x1f 'q' \"w\\\"e\" b2\n # no\n 1.e+3f _c")); diff != "" {
		t.Errorf("identifiers (-want +got):\n%s", diff)
	}
}

func identifiers(text string) (list []string) {
	lex(text, func(token string, ident bool) {
		if ident {
			list = append(list, token)
		}
	})
	return list
}

// FuzzReadSource: whatever the text is, an item that is found mentions what it is
// named, and all identifiers of the closure are in the text.
func FuzzReadSource(f *testing.F) {
	f.Add([]byte(declarations))
	f.Add([]byte(unit))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := readSource(text)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		for name := range s.named {
			names, _ := s.names(name)
			for n := range names {
				if !bytes.Contains(text, []byte(n)) {
					t.Errorf("%s mentions %q, which is not there", name, n)
				}
			}
		}
	})
}

// FuzzReadObject: an object that can be read is like itself.
func FuzzReadObject(f *testing.F) {
	src := strings.Replace(unit, "BODY", plain, 1)
	f.Add(compile(f, src, append(kernelFlags, AllTypes)...), 0, byte(0))
	f.Add(compile(f, src, append(kernelFlags, AllTypes, "-gdwarf-4")...), 900, byte(1))
	f.Fuzz(func(t *testing.T, b []byte, at int, with byte) {
		if at >= 0 && at < len(b) {
			b = bytes.Clone(b)
			b[at] = with
		}
		o, err := ReadObject(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		q := Question{Pre: o, Post: o, Changed: []string{}, Source: func() ([]byte, error) { return []byte(src), nil }}
		for _, list := range o.symbols {
			q.Live = append(q.Live, list...)
		}
		p, err := Prove(q)
		if err != nil {
			if !errors.Is(err, ErrIncomplete) {
				t.Errorf("error %v", err)
			}
			return
		}
		for _, v := range p.Violations {
			if v.Kind != KindUnknown && v.Kind != KindVariable {
				t.Errorf("differs from itself: %v", v)
			}
		}
	})
}
