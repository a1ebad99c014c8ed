// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"debug/dwarf"
	"debug/elf"
	"errors"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/splice/kbuild"
)

func TestPreprocess(t *testing.T) {
	c := compiler(t, map[string]string{
		"include/a.h": "struct a { int x; };\n",
		"fs/a.c":      "#include <a.h>\n#include <gen.h>\nint one(void) { return GEN + MORE; }\n",
		"fs/b.c":      "#error no such thing\n",
	})
	text, err := c.Preprocess(t.Context(), c.unit("fs/a.c", "-DMORE=77"))
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.Contains(s, "struct a { int x; };") || !strings.Contains(s, "+ 77;") || strings.Contains(s, "GEN") {
		t.Errorf("preprocessed to\n%s", s)
	}
	var e *Error
	if _, err := c.Preprocess(t.Context(), c.unit("fs/b.c")); !errors.As(err, &e) || e.Unit != "fs/b.o" || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v", err)
	}
}

// TestAllTypes: types of which only the size counts are there if they are wanted,
// and such objects are kept apart.
func TestAllTypes(t *testing.T) {
	c := compiler(t, map[string]string{"a.c": "struct a { int x; }; int f(void) { return sizeof(struct a); }\n"})
	for _, all := range []bool{false, true, false} {
		c.AllTypes = all
		objects, err := c.Units(t.Context(), []kbuild.Unit{c.unit("a.c")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.Open(objects[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.DWARF()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for r := d.Reader(); ; {
			e, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if e == nil {
				break
			}
			name, _ := e.Val(dwarf.AttrName).(string)
			found = found || name == "a"
		}
		if found != all {
			t.Errorf("AllTypes %v: the type is there: %v", all, found)
		}
		f.Close()
	}
}
