// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"cmp"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// unit is a small piece of kernel code. BODY stands for what a case makes of live.
const unit = `
typedef unsigned long size_t; typedef unsigned int u32; typedef u32 handle_t; typedef struct { int v; } wrap_t;
struct list_head { struct list_head *next, *prev; };
enum color { RED, GREEN = 5, BLUE };
enum { LIMIT = 7, OTHER };
/* inner.h */
struct inner { int x; char last; };
/* obj.h */
struct obj;
struct ops { int (*get)(struct obj *, int); };
struct obj {
	int id; char flag;
	struct list_head list; struct inner in; u32 low:3, high:5;
	union { int u1; short u2; }; char name[16]; enum color color; struct inner *ip; const struct ops *ops; wrap_t wrap;
	unsigned long stamp; union { int alone; }; handle_t handle;
};
struct apart { int a; char b; };
struct opaque;
struct frame { struct apart inside; };
struct kept { int a; char b; };
struct overlap { long x; };
void *kmalloc(size_t size, u32 flags);
void *memcpy(void *, const void *, size_t);
int helper(struct obj *o, int n);
int spare(int n);
#define SPARE spare(1)
void fill(struct apart *a);
extern struct obj *registry;
extern u32 table[8];
extern struct frame framed;
#define PER_CPU __attribute__((section(".data..percpu")))
PER_CPU int counter;
PER_CPU struct inner slot;
static long total;
static struct obj first;
static const short levels[] = { 1, 2 };
int elsewhere(struct opaque *o);
int keep(void);
__attribute__((noinline)) static int mine(struct obj *o, int n) { return o->id + n + helper(o, 2); }
static inline long folded(void) { return sizeof(struct apart); }
int mine_user(struct obj *o) { static const char text[] = "message"; static int calls;
	return mine(o, text[calls++] + levels[calls] + elsewhere(0)); }
long live(void *p, struct obj *o) { BODY }
long bystander(long x) { return x * 3 + total + counter + first.id + slot.x; }
long spare_user(void) { return SPARE; }
long apart_user(struct apart *a) { fill(a); return a->a; }
`

const plain = `return o->id + mine(o, 1);`

// kernelFlags are those of a unit of the kernel that matter here.
var kernelFlags = []string{"-g", "-O2", "-std=gnu11", "-ffunction-sections", "-fdata-sections", "-fno-strict-aliasing", "-w"}

func readUnit(t testing.TB, src string, flags ...string) *Object {
	t.Helper()
	b := compile(t, src, slices.Concat(kernelFlags, []string{AllTypes}, flags)...)
	o, err := ReadObject(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func preprocess(t testing.TB, src string, flags ...string) []byte {
	t.Helper()
	cmd := exec.Command("gcc", append([]string{"-E", "-std=gnu11"}, append(flags, "-")...)...)
	cmd.Stdin = strings.NewReader(src)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func found(p *Proof, function string) []string {
	var list []string
	for _, v := range p.Violations {
		if slices.Contains(v.Functions, function) {
			list = append(list, v.Kind+" "+v.Name)
		}
	}
	return list
}

type plant struct {
	name     string
	old, now string   // replaced in the unit
	body     string   // of live, "" for plain
	want     string   // "KIND NAME" that who must be blocked by
	live     []string // besides live
	who      string   // "" for live
}

// mistakes are those that a layout proof is for: each must be refused.
var mistakes = []plant{
	{name: "member at the end", old: "handle_t handle;", now: "handle_t handle; int added;", want: "type struct obj"},
	{name: "member in the middle", old: "int id; char flag;", now: "int id; int added; char flag;", want: "type struct obj"},
	{name: "member in padding, same size", old: "int id; char flag;", now: "int id; char flag; short added;", want: "type struct obj"},
	{name: "member in padding of a nested struct", old: "int x; char last;", now: "int x; char last; char added;", want: "type struct inner"},
	{name: "member gone", old: "unsigned long stamp;", now: "", want: "type struct obj"},
	{name: "members swapped", old: "int x; char last;", now: "char last; int x;", want: "type struct inner"},
	{name: "retyped, same size", old: "unsigned long stamp;", now: "void *stamp;", want: "type struct obj"},
	{name: "pointer to another struct", old: "struct inner *ip;", now: "struct apart *ip;", want: "type struct obj"},
	{name: "sign", old: "int x; char last;", now: "unsigned int x; char last;", want: "type struct inner"},
	{name: "bit field moved", old: "u32 low:3, high:5;", now: "u32 high:5, low:3;", want: "type struct obj"},
	{name: "bit field wider", old: "u32 low:3, high:5;", now: "u32 low:4, high:4;", want: "type struct obj"},
	{name: "constant renumbered", old: "GREEN = 5", now: "GREEN = 4", want: "type enum color", body: "return o->color == BLUE;"},
	{name: "constant inserted", old: "RED, GREEN", now: "RED, NEW, GREEN", want: "type enum color", body: "return o->color == RED;"},
	{name: "constant of an enum without a name", old: "LIMIT = 7", now: "LIMIT = 8", want: "type constant LIMIT", body: "return LIMIT;"},
	{name: "constant inserted into an enum without a name", old: "LIMIT = 7", now: "LIMIT = 7, INSERTED", want: "type constant OTHER", body: "return OTHER + o->id;"},
	{name: "enum of 8 bytes", old: "BLUE };", now: "BLUE, HUGE = 1ULL << 40 };", want: "type enum color"},
	{name: "array size", old: "char name[16];", now: "char name[20];", want: "type struct obj"},
	{name: "array size, same struct size", old: "char name[16]; enum color color;", now: "char name[12]; int gap; enum color color;", want: "type struct obj"},
	{name: "anonymous union flattened", old: "union { int u1; short u2; };", now: "int u1; short u2;", want: "type struct obj"},
	{name: "union member renamed", old: "short u2;", now: "short u3;", want: "type struct obj"},
	{name: "union grown", old: "union { int u1; short u2; };", now: "union { long u1; short u2; };", want: "type struct obj"},
	{name: "anonymous union to struct", old: "union { int u1; short u2; };", now: "struct { int u1; short u2; };", want: "type struct obj"},
	{name: "nested struct grown", old: "int x; char last;", now: "int x; char last; long added;", want: "type struct obj"},
	{name: "typedef changed", old: "typedef u32 handle_t;", now: "typedef unsigned long handle_t;", want: "type typedef handle_t"},
	{name: "typedef changed, same size", old: "typedef u32 handle_t;", now: "typedef int handle_t;", want: "type typedef handle_t"},
	{name: "struct of a typedef", old: "typedef struct { int v; } wrap_t;", now: "typedef struct { int v; int w; } wrap_t;", want: "type typedef wrap_t"},
	{name: "struct became union", old: "struct kept {", now: "union kept {", body: "union kept *a = p; return a->a;", want: "name union kept"},

	{name: "argument added", old: "int spare(int n);\n#define SPARE spare(1)", now: "int spare(int n, int m);\n#define SPARE spare(1, 2)", want: "prototype spare",
		body: "return spare(1, 2);"},
	{name: "argument from int to long", old: "int helper(struct obj *o, int n);", now: "int helper(struct obj *o, long n);", want: "prototype helper",
		body: "return helper(o, 1);"},
	{name: "argument points to another struct", old: "void fill(struct apart *a);", now: "void fill(struct inner *a);", want: "prototype fill",
		body: "fill(&o->in); return 0;"},
	{name: "result from void to int", old: "void fill(struct apart *a);", now: "int fill(struct apart *a);", want: "prototype fill",
		body: "return fill(p);"},
	{name: "arguments that vary", old: "int n);\nint spare", now: "...);\nint spare", want: "prototype helper", body: "return helper(o, 1);"},
	{name: "prototype of a static function that stays", old: "mine(struct obj *o, int n) {", now: "mine(struct obj *o, long n) {", want: "prototype mine"},
	{name: "prototype of a live function that old code calls", old: "mine(struct obj *o, int n) {", now: "mine(struct obj *o, long n) {", live: []string{"mine"},
		want: "replaced mine", who: "mine"},
	{name: "prototype of an exported live function", old: "long live(void *p,", now: "int live(void *p,", want: "replaced live"},
	{name: "operation behind a pointer", old: "(*get)(struct obj *, int)", now: "(*get)(struct obj *, long)", want: "type struct ops",
		body: "return o->ops->get(o, 1);"},
	{name: "function that nobody knows", old: "int keep(void);", now: "int keep(void); int unheard(int);", want: "unknown unheard", body: "return unheard(1);"},
	{name: "new function that stays behind", old: "long live(", now: "__attribute__((noinline)) long fresh(long x) { return x + total; } long live(",
		body: "return fresh(o->id);", want: "unknown fresh"},

	{name: "per-CPU variable", old: "PER_CPU int counter;", now: "PER_CPU long counter;", want: "variable counter", body: "return ++counter;"},
	{name: "per-CPU variable of a struct", old: "PER_CPU struct inner slot;", now: "PER_CPU struct overlap slot;", body: "return slot.x;", want: "variable slot"},
	{name: "per-CPU no longer", old: "PER_CPU int counter;", now: "int counter;", want: "variable counter", body: "return ++counter;"},
	{name: "static variable", old: "static long total;", now: "static int total;", want: "variable total", body: "return ++total;"},
	{name: "static variable of a function", old: "static int calls;", now: "static long calls;", live: []string{"mine_user"}, want: "variable mine_user.calls", who: "mine_user"},
	{name: "variable of another unit", old: "extern struct obj *registry;", now: "extern struct inner *registry;", want: "variable registry", body: "return registry->x;"},
	{name: "variable of another unit, pointer to struct", old: "extern struct obj *registry;", now: "extern struct obj registry;", want: "variable registry", body: "return registry.id;"},
	{name: "length of an array of another unit", old: "table[8]", now: "table[9]", want: "variable table", body: "return sizeof(table) / sizeof(table[0]);"},
	{name: "variable that nobody knows", old: "int keep(void);", now: "extern int unseen;", want: "unknown unseen", body: "return unseen;"},
	{name: "length of an array that nobody knows", old: "int keep(void);", now: "extern int unseen[4];", want: "unknown unseen", body: "return sizeof(unseen);"},

	{name: "allocation by sizeof", old: "int a; char b;", now: "int a; char b; long c;", want: "type struct apart",
		body: "return (long)kmalloc(sizeof(struct apart), 0);"},
	{name: "allocation by sizeof in an inline", old: "int a; char b;", now: "int a; char b; long c;", want: "type struct apart",
		body: "return (long)kmalloc(folded(), 0);"},
	{name: "allocation by sizeof of a container", old: "int a; char b;", now: "int a; char b; long c;", want: "type struct apart",
		body: "return (long)kmalloc(sizeof(struct frame), 0);"},
	{name: "sizeof in a constant", old: "int a; char b; };\nstruct opaque;", now: "int a; char b; long c; };\nstatic const long size = sizeof(struct apart); struct opaque;",
		body: "return size;", want: "type struct apart"},
	{name: "assignment of a struct", old: "int x; char last;", now: "int x; char last, added;", want: "type struct inner",
		body: "struct obj *other = p; *o = *other; return 0;"},
	{name: "copy of a struct", old: "int x; char last;", now: "int x; char last, added;", want: "type struct inner",
		body: "memcpy(&o->in, p, sizeof(o->in)); return 0;"},
	{name: "copy through a member", old: "int x; char last;", now: "int x; char last, added;", want: "type struct inner",
		body: "*o->ip = *(typeof(o->ip))p; return 0;"},
	{name: "cast", old: "int a; char b;", now: "char b; int a;", want: "type struct apart", body: "return ((struct apart *)p)->a;"},
	{name: "cast by typedef", old: "typedef struct { int v; } wrap_t;", now: "typedef struct { long v; } wrap_t;", want: "type typedef wrap_t",
		body: "return ((wrap_t *)p)->v;"},
	{name: "container_of", old: "int x; char last;", now: "char last; int x; char added;", want: "type struct obj",
		body: "return ((struct obj *)((char *)p - __builtin_offsetof(struct obj, list)))->id;"},
	{name: "offset in assembly", old: "int a; char b;", now: "char b; int a;", want: "type struct apart",
		body: `asm volatile("# %c0" :: "i" (__builtin_offsetof(struct apart, a))); return 0;`},
	{name: "offset in a constant", old: "int a; char b;", now: "char b; int a;", want: "type struct apart",
		body: "return __builtin_offsetof(struct apart, a);"},
	{name: "literal", old: "int a; char b;", now: "int a; char b, c;", want: "type struct apart", body: "*(struct apart *)p = (struct apart){ 1 }; return 0;"},
	{name: "old struct contains a new one", old: "struct obj {", now: "struct added { int y; }; struct obj { struct added added;", want: "type struct obj"},
	{name: "new struct contains a changed one", old: "struct inner { int x; char last; };", now: "struct inner { int x; char last; long more; }; struct outer { int n; struct inner in; };",
		body: "struct outer *u = p; return u->n;", want: "type struct inner"},
}

// fine are changes that must not be refused.
var fine = []plant{
	{name: "nothing"},
	{name: "comment", old: "/* obj.h */", now: "/* obj.h, or what is left of it */"},
	{name: "other code", body: "return o->id * 7 + o->ip->x;"},
	{name: "a new struct", old: "struct frame", now: "struct fresh { int a; struct list_head list; struct inner in; struct obj *o; }; struct frame",
		body: "struct fresh *f = p; return f->a + f->o->id + f->in.x;"},
	{name: "a new struct on the stack", old: "struct frame", now: "struct fresh { long a; int b; }; struct frame",
		body: "struct fresh f = { 1, o->id }; return f.a + f.b;"},
	{name: "a new constant in an enum of its own", old: "enum color", now: "enum { FRESH = 3 }; enum color", body: "return FRESH + o->id;"},
	{name: "a new constant in an enum without a name", old: "OTHER };", now: "OTHER, MORE };", body: "return LIMIT + MORE;"},
	{name: "a new static function", old: "long live(", now: "__attribute__((noinline)) static long fresh(long x) { return x + total; } long live(",
		body: "return fresh(o->id);", live: []string{"fresh"}},
	{name: "a new static variable", old: "long live(", now: "static int fresh; long live(", body: "return ++fresh;"},
	{name: "a new static variable of a function", body: "static struct apart fresh; return ++fresh.a;"},
	{name: "a member of a type that nothing live uses", old: "int a; char b;", now: "int a; char b; long c;"},
	{name: "a bystander of a type that differs", old: "int a; char b;", now: "int a; char b; long c;", body: "return total;", live: []string{"bystander"}},
	{name: "a prototype that nothing live calls", old: "void fill(struct apart *a);", now: "int fill(struct apart *a);"},
	{name: "a prototype whose callers all go live", old: "mine(struct obj *o, int n) {", now: "mine(struct obj *o, long n) {", live: []string{"mine", "mine_user"}},
	{name: "forward declaration became complete", old: "struct opaque;", now: "struct opaque { int o; };", body: "struct opaque *q = p; return elsewhere(q) + q->o;"},
	{name: "complete became forward declaration, of a datum, too", old: "struct frame { struct apart inside; };", now: "struct frame;"},
	{name: "union of one member opened", old: "union { int alone; };", now: "int alone;"},
	{name: "typedef for the same", old: "unsigned long stamp;", now: "size_t stamp;"},
	{name: "longer message", old: `"message"`, now: `"a longer message"`, live: []string{"mine_user"}},
	{name: "constant table", old: "levels[] = { 1, 2 }", now: "levels[] = { 1, 2, 3 }", live: []string{"mine_user"}},
	{name: "qualifier", old: "struct inner *ip;", now: "const struct inner *ip;"},
	{name: "array without its bound", old: "table[8]", now: "table[]", body: "return table[o->id];"},
	{name: "local struct without a name", body: "struct { int a; long b; } s = { o->id, 2 }; return s.a + s.b + mine(o, 3);"},
}

// prove answers for one case, once with the kernel's BTF and once without, with and
// without the preprocessed source.
func prove(t *testing.T, c plant) map[string]*Proof {
	t.Helper()
	src := func(text, body string) string {
		if body == "" {
			body = plain
		}
		return strings.Replace(text, "BODY", body, 1)
	}
	changed := unit
	if c.old != "" {
		if changed = strings.Replace(unit, c.old, c.now, 1); changed == unit {
			t.Fatal("the case changes nothing")
		}
	}
	pre, post := src(unit, ""), src(changed, c.body)
	running, err := FromBTF(btfOf(t, pre))
	if err != nil {
		t.Fatal(err)
	}
	q := Question{Pre: readUnit(t, pre), Post: readUnit(t, post), Live: append([]string{"live"}, c.live...), Changed: []string{}}
	text := func() ([]byte, error) { return preprocess(t, post), nil }
	proofs := map[string]*Proof{}
	for name, q := range map[string]Question{
		"with BTF and source": {Pre: q.Pre, Post: q.Post, Live: q.Live, Changed: q.Changed, Running: running, Source: text},
		"with source":         {Pre: q.Pre, Post: q.Post, Live: q.Live, Changed: q.Changed, Source: text},
		"with BTF":            {Pre: q.Pre, Post: q.Post, Live: q.Live, Changed: q.Changed, Running: running},
	} {
		p, err := Prove(q)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.SourceErr != nil {
			t.Errorf("%s: source: %v", name, p.SourceErr)
		}
		proofs[name] = p
	}
	return proofs
}

func TestMistakesAreRefused(t *testing.T) {
	for _, c := range mistakes {
		t.Run(c.name, func(t *testing.T) {
			for name, p := range prove(t, c) {
				if list := found(p, cmp.Or(c.who, "live")); !slices.Contains(list, c.want) {
					t.Errorf("%s: refused for %q, want %q", name, list, c.want)
				}
			}
		})
	}
}

func TestFineIsAccepted(t *testing.T) {
	for _, c := range fine {
		t.Run(c.name, func(t *testing.T) {
			for name, p := range prove(t, c) {
				if name != "with BTF" && len(p.Violations) > 0 {
					t.Errorf("%s: refused: %v", name, p.Violations)
				}
				if p.Compared == 0 {
					t.Errorf("%s: nothing was compared", name)
				}
			}
		})
	}
}

// TestClones: old and new code must not pass each other what the compiler may have
// left out.
func TestClones(t *testing.T) {
	const src = `
struct big { long a[8]; int used; };
int helper(struct big *b, int n);
__attribute__((noinline)) static int part(struct big *b, int n) { return helper(0, b->used) + SUM; }
int live(struct big *b) { return part(b, 3) + 1; }
int other(struct big *b) { return part(b, 4) + 2; }
`
	pre := readUnit(t, strings.Replace(src, "SUM", "n", 1))
	post := readUnit(t, strings.Replace(src, "SUM", "n * 3", 1))
	var symbol string
	for _, s := range post.symbols["part"] {
		if clone(s) {
			symbol = s
		}
	}
	if symbol == "" {
		t.Fatalf("the compiler made no clone: %v", post.symbols)
	}
	for _, tt := range []struct {
		name          string
		live, changed []string
		want          bool
	}{
		{"all live", []string{symbol, "live", "other"}, nil, false},
		{"a caller that did not change stays", []string{symbol, "live"}, []string{symbol, "live"}, false},
		{"a caller that changed stays", []string{symbol, "live"}, []string{symbol, "live", "other"}, true},
		{"nobody knows what changed", []string{symbol, "live"}, nil, true},
		{"a clone that changed stays", []string{"live"}, []string{symbol, "live"}, true},
		{"a clone that did not change stays", []string{"live"}, []string{"live"}, false},
	} {
		p, err := Prove(Question{Pre: pre, Post: post, Live: tt.live, Changed: tt.changed})
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.ContainsFunc(p.Violations, func(v Violation) bool { return v.Kind == KindClone }); got != tt.want {
			t.Errorf("%s: %v", tt.name, p.Violations)
		}
	}
}

func TestJoin(t *testing.T) {
	src := strings.Replace(unit, "BODY", "int unheard(struct obj *); return unheard(o);", 1)
	o, pre := readUnit(t, src), readUnit(t, strings.Replace(unit, "BODY", plain, 1))
	for def, want := range map[string]int{"": 1, "struct obj; int unheard(struct obj *o) { return 1; }": 0, "int unheard(int o) { return 1; }": 1} {
		module, err := FromBTF(btfOf(t, def+" int other;"))
		if err != nil {
			t.Fatal(err)
		}
		running := Join(pre.Types(), module)
		if p, err := Prove(Question{Pre: pre, Post: o, Running: running, Live: []string{"live"}, Changed: []string{}}); err != nil || len(p.Violations) != want {
			t.Errorf("with %q: %v, %v", def, p, err)
		}
	}
}

func TestQuestions(t *testing.T) {
	src := strings.Replace(unit, "BODY", plain, 1)
	o := readUnit(t, src)
	lazy := compile(t, src, kernelFlags...)
	less, err := ReadObject(bytes.NewReader(lazy), int64(len(lazy)))
	if err != nil {
		t.Fatal(err)
	}
	for name, q := range map[string]Question{"pre": {Pre: less, Post: o}, "post": {Pre: o, Post: less}} {
		if _, err := Prove(q); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s without all types: error %v", name, err)
		}
	}
	if _, err := Prove(Question{Pre: o, Post: o, Live: []string{"nowhere"}}); err == nil {
		t.Error("a function that is not there: no error")
	}
	// A unit that the running kernel does not have.
	p, err := Prove(Question{Post: o, Live: []string{"bystander"}, Source: func() ([]byte, error) { return preprocess(t, src), nil }})
	if err != nil || len(p.Violations) > 0 {
		t.Errorf("new unit: %v, %v", p, err)
	}

	changed := readUnit(t, strings.Replace(src, "int a; char b;", "int a; char b, c;", 1))
	q := Question{Pre: o, Post: changed, Live: []string{"live", "apart_user"}, Changed: []string{}}
	if p, err = Prove(q); err != nil || p.Blocked()["apart_user"].Name != "struct apart" || p.Blocked()["live"].Name != "struct apart" {
		t.Errorf("without source: %v, %v", p, err)
	}
	q.Source = func() ([]byte, error) { return preprocess(t, src), nil }
	if p, err = Prove(q); err != nil || len(p.Blocked()) != 1 || p.Blocked()["apart_user"].Detail != "member c is new" {
		t.Errorf("with source: %v, %v", p, err)
	}
	bad := errors.New("no preprocessor")
	q.Source = func() ([]byte, error) { return nil, bad }
	if p, err = Prove(q); err != nil || !errors.Is(p.SourceErr, bad) || len(p.Blocked()) != 2 {
		t.Errorf("source that cannot be had: %v, %v", p, err)
	}
	q.Allowed = map[string]bool{"struct apart": true}
	if p, err = Prove(q); err != nil || len(p.Violations) > 0 || p.SourceErr != nil {
		t.Errorf("allowed: %v, %v", p, err)
	}
	q = Question{Pre: o, Post: readUnit(t, strings.Replace(src, "long live(void *p,", "int live(void *p,", 1)), Live: []string{"live"},
		Changed: []string{}, Together: map[string]bool{"live": true}}
	if p, err = Prove(q); err != nil || len(p.Violations) > 0 {
		t.Errorf("together: %v, %v", p, err)
	}
	// The kernel's own word goes before that of the old object.
	running, err := FromBTF(btfOf(t, strings.Replace(src, "int x; char last;", "int x; char last, x2;", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if p, err = Prove(Question{Pre: o, Post: o, Running: running, Live: []string{"live"}, Changed: []string{}}); err != nil || len(p.Violations) != 1 ||
		!strings.HasSuffix(p.Violations[0].Detail, "in the running kernel") || len(p.PreOnly) == 0 {
		t.Errorf("kernel with other types: %+v, %v", p, err)
	}
}
