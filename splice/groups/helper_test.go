// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/splice/freeze"
)

// changes cuts small trees into the entities that differ.
func changes(t testing.TB, pre, post map[string]string) []*freeze.Entity {
	t.Helper()
	root := t.TempDir()
	all := make(map[string]bool)
	for side, files := range map[string]map[string]string{"pre": pre, "post": post} {
		if err := os.MkdirAll(filepath.Join(root, side), 0o777); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			all[name] = true
			file := filepath.Join(root, side, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A source whose object no makefile names is included by another one.
	for name := range all {
		if dir, base := filepath.Split(name); strings.HasSuffix(base, ".c") {
			makefile := filepath.Join(root, "pre", dir, "Makefile")
			if err := os.MkdirAll(filepath.Dir(makefile), 0o777); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(makefile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(f, "obj-y += %s.o\n", strings.TrimSuffix(base, ".c"))
			f.Close()
		}
	}
	s, err := freeze.Read(t.Context(), filepath.Join(root, "pre"), filepath.Join(root, "post"), slices.Sorted(maps.Keys(all)))
	if err != nil {
		t.Fatal(err)
	}
	return s.Entities
}

// named finds an entity by its first name.
func named(t *testing.T, list []*freeze.Entity, name string) *freeze.Entity {
	t.Helper()
	for _, e := range list {
		if (e.File == name || slices.Contains(e.Names, name)) && e.Kind != freeze.Declaration {
			return e
		}
	}
	t.Fatalf("no change of %s", name)
	return nil
}
