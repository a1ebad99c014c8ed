// SPDX-License-Identifier: Apache-2.0

package live

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/livecheck"
	"github.com/upsplice/upsplice/splice/match"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// TestNothingOfAnExpectationIsLost fills every field of what the engine writes, and
// looks whether the check gets it.
func TestNothingOfAnExpectationIsLost(t *testing.T) {
	var in match.Expectation
	fill(reflect.ValueOf(&in).Elem())
	out := expectation(in)
	if f := zero("", reflect.ValueOf(out)); f != "" {
		t.Errorf("%s is not filled", f)
	}
	if d := cmp.Diff(in.Fields[0].AltFields[0].Ref.Symbol, out.Fields[0].AltFields[0].Ref.Symbol); d != "" {
		t.Error(d)
	}
	for name, pair := range map[string][2]any{
		"Expectation": {in, out}, "Field": {in.Fields[0], out.Fields[0]},
		"AltField": {in.Fields[0].AltFields[0], out.Fields[0].AltFields[0]}, "Ref": {*in.Fields[0].Ref, *out.Fields[0].Ref},
	} {
		if a, b := reflect.TypeOf(pair[0]).NumField(), reflect.TypeOf(pair[1]).NumField(); a != b {
			t.Errorf("%s has %d fields in the splice and %d in the check", name, a, b)
		}
	}
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(7)
	}
}

// zero names the first field that is not set.
func zero(name string, v reflect.Value) string {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := zero(name+"."+v.Type().Field(i).Name, v.Field(i)); f != "" {
				return f
			}
		}
		return ""
	case reflect.Pointer:
		if !v.IsNil() {
			return zero(name, v.Elem())
		}
	case reflect.Slice:
		if v.Len() > 0 {
			return zero(name, v.Index(0))
		}
	}
	if v.IsZero() {
		return name
	}
	return ""
}

func TestExpectationsByObject(t *testing.T) {
	m := splicefile.Manifest{
		Targets: []splicefile.Target{{Name: "vmlinux"}, {Name: "b", BuildID: "2"}, {Name: "a", BuildID: "1"}},
		Expect:  []match.Expectation{{Name: "f"}, {Object: "a", Name: "g"}, {Object: "vmlinux", Name: "h"}, {Object: "a", Name: "i"}},
	}
	kernel, modules, err := expectations(m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]livecheck.Expectation{{Name: "f"}, {Name: "h"}}, kernel); d != "" {
		t.Errorf("kernel (-want +got):\n%s", d)
	}
	want := []livecheck.Module{{Name: "b", BuildID: "2"}, {Name: "a", BuildID: "1", Expect: []livecheck.Expectation{{Object: "a", Name: "g"}, {Object: "a", Name: "i"}}}}
	if d := cmp.Diff(want, modules); d != "" {
		t.Errorf("modules (-want +got):\n%s", d)
	}
	m.Expect = append(m.Expect, match.Expectation{Object: "c", Name: "j"})
	if _, _, err := expectations(m); err == nil || !strings.Contains(err.Error(), "module c") {
		t.Errorf("a module that is no target: %v", err)
	}
}

// TestTargets: a module of another build is refused whether or not memory is readable.
func TestTargets(t *testing.T) {
	note := "\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\xab\xcd\xef\x01"
	root := fstest.MapFS{
		"sys/module/good/initstate":                {Data: []byte("live\n")},
		"sys/module/good/notes/.note.gnu.build-id": {Data: []byte(note)},
		"sys/module/anonymous/initstate":           {Data: []byte("live\n")},
	}
	k := &Kernel{Root: root}
	for _, c := range []struct{ name, id, want string }{
		{"good", "abcdef01", ""}, {"absent", "1", ""}, {"vmlinux", "1", ""},
		{"good", "abcdef02", "abcdef01 is loaded"}, {"anonymous", "1", "does not show"},
	} {
		err := k.targets(splicefile.Manifest{Targets: []splicefile.Target{{Name: c.name, BuildID: c.id}}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of build %s: %v", c.name, c.id, err)
		}
	}
}
