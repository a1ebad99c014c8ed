// SPDX-License-Identifier: Apache-2.0

package splicefile

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/match"
)

func sample() *File {
	return &File{
		Manifest: Manifest{
			From:      Kernel{Release: "6.1.0-1-cloud-amd64", Version: "6.1.1-1", Arch: "amd64", BuildID: "aa"},
			To:        Kernel{Release: "6.1.0-2-cloud-amd64", Version: "6.1.2-1", Arch: "amd64"},
			Compiler:  "gcc-12 (Debian) <12>",
			Modules:   []Module{{Name: "upsplice_1", File: "upsplice_1.ko"}, {Name: "b", File: "b.ko", Pinned: true}},
			Targets:   []Target{{Name: "vmlinux", BuildID: "ab"}, {Name: "ext4", BuildID: "cd"}},
			Functions: []Function{{Name: "f", Unit: "fs/f.o", Kind: "changed", Sympos: 1}},
			Groups:    []Group{{Units: []string{"fs/f.o"}, Functions: []string{"f"}, Live: true}, {Units: []string{"fs/g.o"}, Functions: []string{}, Reasons: []Reason{{Code: "layout", What: "struct g", Detail: "size"}}}},
			Expect:    []match.Expectation{{Name: "f", Sympos: 1, Addr: 0xffffffff81000000, Bytes: []byte{1, 2}}},
			Files:     2, Hunks: 3, PostMatch: Check{Matched: 1, Total: 1},
		},
		Payload: map[string][]byte{"upsplice_1": []byte("\x7fELF one"), "b": bytes.Repeat([]byte{7}, 5000)},
	}
}

func written(t testing.TB, f *File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	f := sample()
	data := written(t, f)
	if !bytes.Equal(data, written(t, sample())) {
		t.Error("written twice, the bytes differ")
	}
	got, err := Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	if len(got.Manifest.ID) != 64 || got.Manifest.Modules[0].Size != 8 {
		t.Errorf("manifest: %+v", got.Manifest)
	}
	other := sample()
	other.Payload["b"][0]++
	written(t, other)
	if other.Manifest.ID == f.Manifest.ID {
		t.Error("another module, the same id")
	}
	h, err := tar.NewReader(bytes.NewReader(data)).Next()
	if err != nil || h.Name != "manifest.json" {
		t.Errorf("first member: %v, %v", h, err)
	}
}

// remake takes the archive apart and lets change put it together in another way.
func remake(t *testing.T, data []byte, change func(name string, data []byte, w *tar.Writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		change(h.Name, text, w)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadRefuses(t *testing.T) {
	data := written(t, sample())
	put := func(w *tar.Writer, name string, text []byte) {
		if err := member(w, name, text); err != nil {
			t.Fatal(err)
		}
	}
	manifest := func(old, new string) []byte {
		return remake(t, data, func(name string, text []byte, w *tar.Writer) {
			if name == manifestName {
				if !bytes.Contains(text, []byte(old)) {
					t.Fatalf("%q is not in the manifest", old)
				}
				text = bytes.Replace(text, []byte(old), []byte(new), 1)
			}
			put(w, name, text)
		})
	}
	flipped := bytes.Clone(data)
	flipped[bytes.Index(flipped, []byte("\x7fELF one"))+5] ^= 1
	colours := sample()
	colours.Manifest.Description = "\x1b[2J"
	terminal := written(t, colours)
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"empty":         {nil, "manifest.json is missing"},
		"no tar":        {[]byte(strings.Repeat("x", 2000)), "looking for manifest.json"},
		"in a header":   {data[:100], "looking for manifest.json"},
		"in a manifest": {data[:700], "unexpected EOF"},
		"without module": {remake(t, data, func(n string, d []byte, w *tar.Writer) {
			map[bool]func(){true: func() { put(w, n, d) }, false: func() {}}[n != "b.ko"]()
		}), "b.ko is missing"},
		"no end":      {data[:len(data)-2000], "unexpected EOF"},
		"flipped bit": {flipped, "upsplice_1.ko: damaged or altered"},
		"extra member": {remake(t, data, func(n string, d []byte, w *tar.Writer) {
			put(w, n, d)
			if n == "b.ko" {
				put(w, "evil", nil)
			}
		}), `"evil": not named`},
		"first":           {remake(t, data, func(n string, d []byte, w *tar.Writer) { put(w, "x"+n, d) }), `"xmanifest.json" where manifest.json has to be`},
		"tail":            {append(bytes.Clone(data), "tail"...), "the file around them"},
		"format":          {manifest(`"format": 2`, `"format": 3`), "format 3 is not known"},
		"no json":         {manifest(`{`, `[`), "manifest.json: invalid"},
		"unknown field":   {manifest(`"hunks": 3`, `"hunks": 3, "x": 1`), "unknown field"},
		"altered":         {manifest(`"hunks": 3`, `"hunks": 4`), "manifest.json: damaged or altered"},
		"other form":      {manifest(`"hunks": 3`, `"hunks":  3`), "not in the form"},
		"control":         {terminal, "control character"},
		"path":            {manifest(`"file": "b.ko"`, `"file": "../b.ko"`), "not a plain and unique one"},
		"same file":       {manifest(`"file": "b.ko"`, `"file": "upsplice_1.ko"`), "not a plain and unique one"},
		"same name":       {manifest(`"name": "b"`, `"name": "upsplice_1"`), "not unique"},
		"promise":         {manifest(`"size": 5000`, `"size": 50000000000`), "more than the limit"},
		"digest":          {manifest(digest(sample().Payload["b"]), strings.Repeat("0", 64)), "damaged or altered"},
		"link for module": {remake(t, data, func(n string, d []byte, w *tar.Writer) { linkOr(t, w, n, d) }), "was altered"},
	} {
		_, err := Read(bytes.NewReader(tc.data))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	// Every truncation is noticed.
	for n := 0; n < len(data); n += 97 {
		if _, err := Read(bytes.NewReader(data[:n])); err == nil {
			t.Fatalf("the first %d of %d bytes: no error", n, len(data))
		}
	}
}

func linkOr(t *testing.T, w *tar.Writer, name string, data []byte) {
	if name != "b.ko" {
		if err := member(w, name, data); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "/etc/shadow"}); err != nil {
		t.Fatal(err)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, change := range map[string]func(*File){
		"no bytes":      func(f *File) { delete(f.Payload, "b"); f.Payload["c"] = nil },
		"not named":     func(f *File) { f.Payload["c"] = nil },
		"path":          func(f *File) { f.Manifest.Modules[0].File = "/etc/x" },
		"manifest name": func(f *File) { f.Manifest.Modules[0].File = manifestName },
		"too large":     func(f *File) { f.Payload["b"] = make([]byte, maxModule+1) },
	} {
		f := sample()
		change(f)
		if err := Write(io.Discard, f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	f := &File{Payload: map[string][]byte{}}
	for i := range maxModules + 1 {
		n := strings.Repeat("m", i+1)
		f.Manifest.Modules = append(f.Manifest.Modules, Module{Name: n, File: n[:min(i+1, 90)]})
		f.Payload[n] = nil
	}
	if err := Write(io.Discard, f); err == nil || !strings.Contains(err.Error(), "more than the limit of 256") {
		t.Errorf("too many modules: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	data := written(f, sample())
	f.Add(data)
	f.Add(data[:900])
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		var b bytes.Buffer
		id := file.Manifest.ID
		if err := Write(&b, file); err != nil || file.Manifest.ID != id {
			t.Errorf("what was read cannot be written: %v, id %s after %s", err, file.Manifest.ID, id)
		}
	})
}
