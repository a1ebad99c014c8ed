// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/object"
)

const (
	mover      = `int f(int x) { return outside(x) + 1; } `
	moverLater = `int f(int x) { return outside(x) + 2; } `
	stays      = `int g(int x) { return other(x); } `
	counting   = `int f(int x) { static int n = 3; n += outside(x); return n; } `
)

func TestJoin(t *testing.T) {
	for _, tt := range []struct {
		name  string
		units [][2]string // pre and post of each
		want  []summary
		moved string // the function with Moved, "" for none
		twins []string
	}{
		{
			name: "global function moved", units: [][2]string{{mover + stays, stays}, {`int h(void) { return 1; }`, `int h(void) { return 1; } ` + mover}},
			want: []summary{{Outcome: Unchanged}, changed("f")}, moved: "f", twins: []string{"f"},
		},
		{
			name: "global function moved and changed", units: [][2]string{{`int h(void) { return 1; }`, `int h(void) { return 1; } ` + moverLater}, {mover + stays, stays}},
			want: []summary{changed("f"), {Outcome: Unchanged}}, moved: "f",
		},
		{
			name: "called from the unit that had it", units: [][2]string{
				{`noinline ` + mover + `int g(int x) { return f(x) * 3; }`, `extern int f(int); int g(int x) { return f(x) * 3; }`}, {``, mover}},
			want: []summary{{Outcome: Unchanged}, changed("f")}, moved: "f",
		},
		{
			name: "static function moved and changed", units: [][2]string{
				{`static noinline ` + mover + `int g(int x) { return f(x) * 3; }`, `int g(int x) { return x; }`},
				{`int h(int x) { return x; }`, `static noinline ` + moverLater + `int h(int x) { return f(x) * 3; }`}},
			want: []summary{changed("g"), changed("f", "h")}, moved: "f",
		},
		{
			name: "static function made global elsewhere", units: [][2]string{
				{`static noinline ` + mover + `int g(int x) { return f(x) * 3; }`, `extern int f(int); int g(int x) { return f(x) * 3; }`}, {``, moverLater}},
			want: []summary{changed("g"), changed("f")}, moved: "f", twins: []string{"f"},
		},
		{
			name: "static functions that share only the name", units: [][2]string{
				{`static noinline ` + mover + `int g(int x) { return f(x) * 3; }`, `int g(int x) { return x; }`},
				{`int h(int x) { return x; }`, `static noinline int f(int a) { return other(a) - 1; } int h(int x) { return f(x) * 3; }`}},
			want: []summary{{Outcome: Changed, Functions: []string{"removed f", "changed g"}}, {Outcome: Changed, Functions: []string{"new f", "changed h"}}},
		},
		{
			name: "static functions of three units", units: [][2]string{
				{`static noinline ` + mover + `int g(int x) { return f(x) * 3; }`, `int g(int x) { return x; }`},
				{`static noinline ` + mover + `int i(int x) { return f(x) * 3; }`, `int i(int x) { return x; }`},
				{`int h(int x) { return x; }`, `static noinline ` + mover + `int h(int x) { return f(x) * 3; }`}},
			want: []summary{{Outcome: Changed, Functions: []string{"removed f", "changed g"}}, {Outcome: Changed, Functions: []string{"removed f", "changed i"}},
				{Outcome: Changed, Functions: []string{"new f", "changed h"}}},
		},
		{
			name: "without fentry, the same", units: [][2]string{{`notrace ` + mover, ``}, {``, `notrace ` + mover}},
			want: []summary{{Outcome: Changed, Functions: []string{"removed f"}}, {Outcome: Changed, Functions: []string{"new f"}}},
		},
		{
			name: "without fentry, changed", units: [][2]string{{`notrace ` + mover, ``}, {``, `notrace ` + moverLater}},
			want:  []summary{{Outcome: Unchanged}, {Outcome: Refused, Functions: []string{"changed f"}, Refusals: []string{"no fentry f.text.f"}}},
			moved: "f",
		},
		{
			name: "with its static variable", units: [][2]string{{counting, ``}, {`int h(int x) { static int n; return n += x; }`, `int h(int x) { static int n; return n += x; } ` + counting}},
			want: []summary{{Outcome: Unchanged}, changed("f")}, moved: "f", twins: []string{"n"},
		},
		{
			name: "with its static variable, initialised in another way", units: [][2]string{{counting, ``}, {``, strings.Replace(counting, "n = 3", "n = 4", 1)}},
			want: []summary{{Outcome: Unchanged}, {Outcome: Refused, Functions: []string{"changed f"}, Data: []string{"changed n"}, Refusals: []string{"existing data changed n.data.n"}}}, moved: "f",
		},
		{
			name: "global variable moved", units: [][2]string{{`int limit = 5; int g(void) { return limit; }`, `extern int limit; int g(void) { return limit; }`}, {``, `int limit = 5;`}},
			want: []summary{{Outcome: Unchanged}, {Outcome: Unchanged}}, twins: []string{"limit"},
		},
		{
			name: "global variable moved and changed", units: [][2]string{{`int limit = 5; int g(void) { return limit; }`, `extern int limit; int g(void) { return limit; }`}, {``, `int limit = 6;`}},
			want: []summary{{Outcome: Unchanged}, {Outcome: Refused, Data: []string{"changed limit"}, Refusals: []string{"existing data changed limit.data.limit"}}},
		},
		{
			name: "static variable that may be another", units: [][2]string{
				{`static int limit; int g(void) { return limit++; }`, `int g(void) { return 1; }`}, {`int h(void) { return 1; }`, `static int limit; int h(void) { return limit++; }`}},
			want: []summary{{Outcome: Changed, Functions: []string{"changed g"}, Data: []string{"removed limit"}},
				{Outcome: Refused, Functions: []string{"changed h"}, Data: []string{"new limit"}, Refusals: []string{"existing data changed limit.bss.limit"}}},
		},
		{
			name: "static variable of a function that moved", units: [][2]string{
				{`static int limit; ` + `int f(int x) { return outside(x) + limit++; }`, ``}, {``, `static int limit; int f(int x) { return outside(x) + limit++ + 1; }`}},
			want: []summary{{Outcome: Unchanged}, changed("f")}, moved: "f", twins: []string{"limit"},
		},
		{
			name: "new function in the place of a weak one", units: [][2]string{{`__attribute__((weak)) ` + mover + `int i(void) { return 1; }`, `__attribute__((weak)) ` + mover + `int i(void) { return 2; }`}, {``, moverLater}},
			want: []summary{changed("i"), changed("f")}, moved: "f",
		},
		{
			name: "new function in the place of a weak one without fentry", units: [][2]string{
				{`__attribute__((weak)) notrace ` + mover + `int i(void) { return 1; }`, `__attribute__((weak)) notrace ` + mover + `int i(void) { return 2; }`}, {``, moverLater}},
			want: []summary{changed("i"), {Outcome: Refused, Functions: []string{"changed f"}, Refusals: []string{"no fentry f.text.f"}}}, moved: "f",
		},
		{
			name: "weak function in the place of one that is gone", units: [][2]string{{`__attribute__((weak)) ` + mover, `__attribute__((weak)) ` + mover}, {moverLater, ``}},
			want: []summary{{Outcome: Unchanged}, {Outcome: Refused, Functions: []string{"removed f"}, Refusals: []string{"weak f.text.f"}}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var results []*Result
			var posts []*object.Object
			pres := map[*object.Symbol]int{}
			for i, u := range tt.units {
				pre, post := compile(t, u[0]), compile(t, u[1])
				r, err := Compare(pre, post)
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range pre.Symbols {
					pres[s] = i
				}
				results, posts = append(results, r), append(posts, post)
			}
			Join(results)
			moved := ""
			for i, r := range results {
				if diff := cmp.Diff(tt.want[i], summarise(r)); diff != "" {
					t.Errorf("unit %d (-want +got):\n%s", i, diff)
				}
				for _, c := range r.Functions {
					if !c.Moved {
						continue
					}
					moved += c.Name
					if pres[c.Pre] == i || c.Pre.Section == nil || !c.Fentry && len(r.Refusals) == 0 {
						t.Errorf("%s is moved from %v of unit %d", c.Name, c.Pre, pres[c.Pre])
					}
				}
			}
			if moved != tt.moved {
				t.Errorf("moved %q, want %q", moved, tt.moved)
			}
			for _, name := range tt.twins {
				for i, o := range posts {
					for _, s := range o.Symbols {
						if plain(stem(s.Name)) != name || s.Type == elf.STT_SECTION {
							continue
						}
						if a := results[i].Twin[s]; a == nil || a.Section == nil {
							t.Errorf("%s of unit %d has twin %v", s.Name, i, a)
						}
					}
				}
			}
		})
	}
}

// A unit that one of the kernels does not have is an object without contents.
func TestJoinNewUnit(t *testing.T) {
	none := &object.Object{Machine: elf.EM_X86_64}
	gone, err := Compare(compile(t, mover+stays), none)
	if err != nil {
		t.Fatal(err)
	}
	here, err := Compare(none, compile(t, moverLater+stays+`int h(void) { return 1; }`))
	if err != nil {
		t.Fatal(err)
	}
	Join([]*Result{gone, here})
	if diff := cmp.Diff(summary{Outcome: Unchanged}, summarise(gone)); diff != "" {
		t.Errorf("old unit (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(summary{Outcome: Changed, Functions: []string{"changed f", "changed g", "new h"}}, summarise(here)); diff != "" {
		t.Errorf("new unit (-want +got):\n%s", diff)
	}
}
