// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// makefileBuild stands for scripts/Makefile.build: it knows how to make one header,
// with a program that is made first, and one that it cannot make.
const makefileBuild = `
scripts/asn1_compiler: ; @printf '#!/bin/sh\necho made > $$1\n' > $@; chmod +x $@
$(obj)/keys.h: scripts/asn1_compiler ; @scripts/asn1_compiler $@
$(obj)/broken.h: ; @echo half > $@; echo no such thing >&2; exit 1
`

func TestGenerate(t *testing.T) {
	m := small(t, "")
	if err := os.MkdirAll(filepath.Join(m.Source, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.Source, "scripts/Makefile.build"), []byte(makefileBuild), 0o644); err != nil {
		t.Fatal(err)
	}
	o, err := Seed(t.Context(), filepath.Join(t.TempDir(), "out"), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(o.Dir, "crypto/keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What includes it may be further down.
	u := Unit{Object: "crypto/keys/ss/parse.o", Source: "crypto/keys/ss/parse.c", Args: []string{"cc", "-I/elsewhere", "-I./crypto/keys"}}
	if err := o.Generate(t.Context(), u, "keys.h"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(o.Dir, "crypto/keys/keys.h"))
	if string(text) != "made\n" {
		t.Errorf("the header is %q, %v", text, err)
	}
	for _, name := range []string{"broken.h", "unknown.h", "../../../../../etc/passwd"} {
		err := o.Generate(t.Context(), u, name)
		var none *GenerateError
		if err == nil || name != "../../../../../etc/passwd" && !errors.As(err, &none) {
			t.Errorf("%s: %v", name, err)
		}
		if found, _ := filepath.Glob(filepath.Join(o.Dir, "crypto/keys", name)); len(found) > 0 {
			t.Errorf("%s is there", name)
		}
	}
	if st, err := os.Stat(filepath.Join(o.Dir, "scripts/bin2c")); err == nil && st.Size() > 0 {
		t.Error("a program that the kernel has no rule for was made")
	}
}
