// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"os"
	"path/filepath"
	"testing"
)

// asn1Compiler stands for the kernel's: it writes the name of its input.
const asn1Compiler = `#include <linux/given.h>
int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++) {
		FILE *f = fopen(argv[i], "w");
		if (!f)
			return 1;
		fputs(argv[1], f);
	}
	return argc != 4;
}
`

func TestGenerate(t *testing.T) {
	m := Materials{Source: t.TempDir(), CC: "gcc-12"}
	write := func(dir, name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(m.Source, "scripts/asn1_compiler.c", asn1Compiler)
	write(m.Source, "include/linux/given.h", "#include <stdio.h>\n")
	write(m.Source, "crypto/keys/x509.asn1", "x")
	// A program that does not compile leaves its units without a header, no more.
	write(m.Source, "scripts/selinux/genheaders/genheaders.c", "#error no\n")
	for config, want := range map[string]bool{"CONFIG_ASN1=y\nCONFIG_SECURITY_SELINUX=y\n": true, "CONFIG_ASN1=m\n": true, "# CONFIG_ASN1 is not set\n": false} {
		dir := t.TempDir()
		write(dir, ".config", config)
		if err := m.generate(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"crypto/keys/x509.asn1.c", "crypto/keys/x509.asn1.h"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if got := err == nil && string(text) == filepath.Join(m.Source, "crypto/keys/x509.asn1"); got != want {
				t.Errorf("with %q: %s is %q, %v", config, name, text, err)
			}
		}
	}
	m.CC = "no-such-compiler"
	dir := t.TempDir()
	write(dir, ".config", "CONFIG_ASN1=y\n")
	if err := m.generate(t.Context(), dir); err == nil {
		t.Error("without a compiler: no error")
	}
}
