// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

const types = `
typedef unsigned int u32; typedef u32 alias; typedef struct { int counter; } atomic_t;
struct only_declared;
enum color { RED, GREEN = 5, BLUE };
enum negative { MINUS = -3, PLUS = 2 };
union either { long l; char c[16]; };
struct inner { u32 a; const volatile u32 b; };
struct bits { unsigned int a:3, b:5; unsigned int :4; unsigned char c:8; long d:40; _Bool e:1; };
struct list { struct list *next, **prev; };
struct all {
	char name[16]; signed char sc; unsigned char uc; short s; unsigned short us; long l; unsigned long ul; _Bool flag;
	double d; atomic_t refs; enum color color; enum { X = 3, Y } unnamed; struct inner in[3]; int grid[4][5]; u32 *array[2];
	union { int x; struct { short y, z; } deep; struct { char p; short q; }; };
	struct { int m; } sub; int (*run)(struct only_declared *, int); void *any; const char *text; struct only_declared *od;
	struct list head; struct bits bits; union either either; int flexible[];
};
struct packed { char c; long l; } __attribute__((packed));
struct all *use1; struct packed *use2; enum negative use3; alias use4; struct bits use5; struct all use6;
`

func compile(t testing.TB, src string, flags ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "a.c"), filepath.Join(dir, "a.o")
	if err := os.WriteFile(in, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command("gcc", append(flags, "-c", "-o", out, in)...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, msg)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func dwarfOf(t testing.TB, src string, flags ...string) *Types {
	t.Helper()
	types, err := FromDWARF(bytes.NewReader(compile(t, src, append(flags, "-g")...)))
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func btfOf(t testing.TB, src string) []byte {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(compile(t, src, "-gbtf")))
	if err != nil {
		t.Fatal(err)
	}
	s := f.Section(".BTF")
	if s == nil {
		t.Fatal("gcc -gbtf wrote no .BTF section")
	}
	b, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func one(t *testing.T, types *Types, name string) Type {
	t.Helper()
	if n := len(types.byName[name]); n != 1 {
		t.Fatalf("%d types %s", n, name)
	}
	return types.byName[name][0]
}

func TestFromDWARF(t *testing.T) {
	want := strings.Join([]string{
		"0:0 name [16]int1", "128:0 sc int1", "136:0 uc int1", "144:0 s int2", "160:0 us uint2", "192:0 l int8", "256:0 ul uint8", "320:0 flag bool1",
		"384:0 d float8", "448:0 refs struct/4{0:0 counter int4;}", "480:0 color enum color/4", "512:0 unnamed enum/4{X=3;Y=4;}",
		"544:0 in [3]struct inner", "736:0 grid [20]int4", "1408:0 array [2]*uint4",
		"1536:0 x int4", "1536:0 deep struct/4{0:0 y int2;16:0 z int2;}", "1536:0 p int1", "1552:0 q int2",
		"1568:0 sub struct/4{0:0 m int4;}", "1600:0 run *func(*struct only_declared,int4)int4", "1664:0 any *void", "1728:0 text *int1", "1792:0 od *struct only_declared",
		"1856:0 head struct list", "1984:0 bits struct bits", "2112:0 either union either", "2240:0 flexible [0]int4", "",
	}, "\n")
	for _, version := range []string{"-gdwarf-4", "-gdwarf-5"} {
		types := dwarfOf(t, types, version)
		all := one(t, types, "struct all")
		if all.Size != 280 {
			t.Errorf("%s: size %d", version, all.Size)
		}
		if diff := cmp.Diff(want, all.Members); diff != "" {
			t.Errorf("%s: struct all (-want +got):\n%s", version, diff)
		}
		if got := one(t, types, "struct bits").Members; got != "0:3 a uint4\n3:5 b uint4\n16:0 c int1\n24:40 d int8\n64:1 e bool1\n" {
			t.Errorf("%s: struct bits:\n%s", version, got)
		}
		if got := one(t, types, "enum negative"); got.Members != "MINUS=4294967293\nPLUS=2\n" || got.Size != 4 {
			t.Errorf("%s: enum negative: %+v", version, got)
		}
		if got := one(t, types, "typedef alias"); got.Members != "uint4" || got.Size != 4 {
			t.Errorf("%s: typedef alias: %+v", version, got)
		}
		if got := types.byName["struct only_declared"]; got != nil {
			t.Errorf("%s: a declaration is there as %+v", version, got)
		}
	}
}

func TestSourcesAgree(t *testing.T) {
	fromBTF, err := FromBTF(btfOf(t, types))
	if err != nil {
		t.Fatal(err)
	}
	fromDWARF := dwarfOf(t, types)
	if diff := Compare(fromDWARF, fromBTF); len(diff) > 0 {
		t.Errorf("DWARF with BTF: %+v", diff)
	}
	if diff := Compare(fromBTF, fromDWARF); len(diff) > 0 {
		t.Errorf("BTF with DWARF: %+v", diff)
	}
	for name := range fromDWARF.byName {
		if fromBTF.byName[name] == nil {
			t.Errorf("%s is not in BTF", name)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, tt := range []struct {
		name, old, now string
		want           []Difference
	}{
		{"nothing", "", "", nil},
		{"comment and order of declarations", "struct list {", "/* x */ struct list {", nil},
		{"typedef for the same", "char name[16]", "typeof(char) name[16]", nil},
		{"added", "u32 a; const", "u32 a, z; const", []Difference{{"struct all", "size 280 became 288"}, {"struct inner", "size 8 became 12"}}},
		{"added in a hole", "double d;", "short hole; double d;", []Difference{{"struct all", "member hole is new"}}},
		{"moved", "short s; unsigned short us;", "unsigned short us; short s;", []Difference{{"struct all", "member s moved from bit 144 to bit 160"}}},
		{"retyped", "long l; unsigned long ul;", "long l; long ul;", []Difference{{"struct all", "member ul was uint8 and became int8"}}},
		{"other pointer", "struct list *next,", "struct inner *next, *", []Difference{{"struct list", "member next was *struct list and became *struct inner"}}},
		{"renamed", "short y, z;", "short y, zz;", []Difference{{"struct all", "member deep was struct/4{0:0 y int2;16:0 z int2;} and became struct/4{0:0 y int2;16:0 zz int2;}"}}},
		{"in an anonymous struct", "short q;", "short qq;", []Difference{{"struct all", "member q is gone"}}},
		{"array length", "grid[4][5]", "grid[4][4]", []Difference{{"struct all", "size 280 became 264"}}},
		{"bit field", "a:3, b:5", "a:4, b:4", []Difference{{"struct bits", "member a moved from bit 0:3 to bit 0:4"}}},
		{"enum renumbered", "GREEN = 5", "GREEN = 6", []Difference{{"enum color", "BLUE was 6 and became 7"}}},
		{"enum value new", "BLUE }", "BLUE, BROWN }", []Difference{{"enum color", "value BROWN is new"}}},
		{"enum value gone", "GREEN = 5, BLUE }", "GREEN = 5 }", []Difference{{"enum color", "value BLUE is gone"}}},
		{"enum in a struct", "X = 3", "X = 4", []Difference{{"constant X", "X was 3 and became 4"}, {"constant Y", "Y was 4 and became 5"}, {"struct all", "member unnamed was enum/4{X=3;Y=4;} and became enum/4{X=4;Y=5;}"}}},
		{"prototype behind a pointer", "(*run)(struct only_declared *, int)", "(*run)(struct only_declared *, long)", []Difference{{"struct all", "member run was *func(*struct only_declared,int4)int4 and became *func(*struct only_declared,int8)int4"}}},
		{"arguments that vary", "*, int)", "*, int, ...)", []Difference{{"struct all", "member run was *func(*struct only_declared,int4)int4 and became *func(*struct only_declared,int4...)int4"}}},
		{"pointer to a struct without a name", "void *any", "struct { int z; } *any", []Difference{{"struct all", "member any was *void and became *struct/4{0:0 z int4;}"}}},
		{"typedef", "typedef u32 alias;", "typedef int alias;", []Difference{{"typedef alias", `"uint4" became "int4"`}}},
		{"union", "char c[16];", "char c[16]; short s;", []Difference{{"union either", "member s is new"}}},
		{"now declared only", "struct packed { char c; long l; } __attribute__((packed));", "struct packed;", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(types, tt.old, tt.now, 1)
			if tt.want != nil && changed == types {
				t.Fatal("the case changes nothing")
			}
			now := dwarfOf(t, changed)
			got := Compare(dwarfOf(t, types), now)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if old, err := FromBTF(btfOf(t, types)); err != nil {
				t.Fatal(err)
			} else if d := Compare(old, now); (len(d) > 0) != (tt.want != nil) {
				t.Errorf("BTF with DWARF: %+v", d)
			}
		})
	}
}

// TestSharedName covers private types of different units with the same name.
func TestSharedName(t *testing.T) {
	two := dwarfOf(t, `int f(void) { struct ctx { int a; } x = { 1 }; return x.a; } int g(void) { struct ctx { long b; } x = { 1 }; return x.b; }`)
	first := dwarfOf(t, `struct ctx { int a; } x;`)
	third := dwarfOf(t, `struct ctx { char c; } x;`)
	if d := Compare(first, two); len(d) > 0 {
		t.Errorf("one of two: %+v", d)
	}
	if d := Compare(two, first); len(d) > 0 {
		t.Errorf("two with one of them: %+v", d)
	}
	if d := Compare(two, dwarfOf(t, `int f(void) { struct ctx { int a; } x = { 1 }; return x.a; } int g(void) { struct ctx { char c; } x = { 1 }; return x.c; }`)); len(d) != 1 {
		t.Errorf("two with one of them and another: %+v", d)
	}
	if d := Compare(third, two); len(d) != 1 {
		t.Errorf("none of two: %+v", d)
	}
}

func marshal(t testing.TB, types ...btf.Type) []byte {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestWideEnums(t *testing.T) {
	const src = `enum wide { LOW = 1, HIGH = 1ULL << 40 }; enum wide w; enum also { A = 1ULL << 33 }; enum also v;`
	enum := func(name string, high uint64) *btf.Enum {
		return &btf.Enum{Name: name, Size: 8, Values: []btf.EnumValue{{Name: "LOW", Value: 1}, {Name: "HIGH", Value: high}}}
	}
	for _, tt := range []struct {
		name  string
		types []btf.Type
		want  int
	}{
		{"whole values", []btf.Type{enum("wide", 1<<40)}, 0},
		{"other value", []btf.Type{enum("wide", 1<<41)}, 1},
		{"cut to 32 bits", []btf.Type{enum("wide", 0)}, 0},
		{"other low bits", []btf.Type{enum("wide", 7)}, 1},
		{"small, but others are whole", []btf.Type{enum("wide", 0), enum("another", 1<<40)}, 1},
	} {
		types, err := FromBTF(marshal(t, tt.types...))
		if err != nil {
			t.Fatal(err)
		}
		if d := Compare(types, dwarfOf(t, src)); len(d) != tt.want {
			t.Errorf("%s: %+v", tt.name, d)
		}
	}
}

func TestErrors(t *testing.T) {
	good := compile(t, types, "-g")
	for name, b := range map[string][]byte{
		"empty":      nil,
		"garbage":    []byte("garbage"),
		"cut off":    good[:len(good)/2],
		"without -g": compile(t, types),
	} {
		if _, err := FromDWARF(bytes.NewReader(b)); !errors.Is(err, ErrFormat) {
			t.Errorf("FromDWARF, %s: error %v", name, err)
		}
	}
	raw := btfOf(t, types)
	for name, b := range map[string][]byte{
		"empty": nil, "garbage": []byte("garbage"), "object": good, "cut off": raw[:len(raw)/2],
	} {
		if _, err := FromBTF(b); !errors.Is(err, ErrFormat) {
			t.Errorf("FromBTF, %s: error %v", name, err)
		}
	}
}

// TestNestedWithoutEnd has types that no compiler makes: written out they would
// never end.
func TestNestedWithoutEnd(t *testing.T) {
	var inner btf.Type = &btf.Struct{}
	for range 60 {
		inner = &btf.Struct{Members: []btf.Member{{Type: inner}, {Type: inner}}}
	}
	outer := &btf.Struct{Name: "outer", Members: []btf.Member{{Type: inner}}}
	if _, err := FromBTF(marshal(t, outer)); !errors.Is(err, ErrFormat) {
		t.Errorf("doubling: error %v", err)
	}
	self := &btf.Struct{}
	self.Members = []btf.Member{{Name: "again", Type: self}}
	if _, err := FromBTF(marshal(t, &btf.Struct{Name: "outer", Members: []btf.Member{{Name: "x", Type: self}}})); !errors.Is(err, ErrFormat) {
		t.Errorf("containing itself: error %v", err)
	}
}

func FuzzFromDWARF(f *testing.F) {
	f.Add(compile(f, types, "-g"), 0, byte(0))
	f.Add(compile(f, types, "-gdwarf-4"), 900, byte(1))
	f.Fuzz(func(t *testing.T, b []byte, at int, with byte) {
		if at >= 0 && at < len(b) {
			b = bytes.Clone(b)
			b[at] = with
		}
		types, err := FromDWARF(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		if d := Compare(types, types); len(d) > 0 {
			t.Errorf("differs from itself: %+v", d)
		}
	})
}

func FuzzFromBTF(f *testing.F) {
	f.Add(btfOf(f, types))
	f.Add(marshal(f, &btf.Enum{Name: "e", Size: 8, Values: []btf.EnumValue{{Name: "v", Value: 1 << 40}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		types, err := FromBTF(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error %v", err)
			}
			return
		}
		if d := Compare(types, types); len(d) > 0 {
			t.Errorf("differs from itself: %+v", d)
		}
	})
}
