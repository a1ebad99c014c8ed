// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/splice/splicefile"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", name, diff)
	}
}

func textOf(t *testing.T, r *Report, would string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.Text(&b, would); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jsonOf(t *testing.T, r *Report) []byte {
	t.Helper()
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func htmlOf(t *testing.T, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b, "would be "); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The JSON form is an interface: a change of this file is one that programs notice.
func TestSmall(t *testing.T) {
	r := Make(small())
	golden(t, "small.json", jsonOf(t, r))
	golden(t, "small.txt", textOf(t, r, "would be "))
	golden(t, "small.html", htmlOf(t, r))
}

func TestLargeAddsUp(t *testing.T) {
	r := Make(large())
	golden(t, "large.txt", textOf(t, r, ""))
	want := []string{
		"live after 9 min: 473 of 566 fixes, 591 functions, about 188 of the 246 CVEs that reach this machine",
		"93 wait for the next boot: 71 need new struct members, 15 run only at boot, 7 others (upsplice status --why)",
	}
	if diff := cmp.Diff(want, r.Summary(9*time.Minute)); diff != "" {
		t.Errorf("Summary (-want +got):\n%s", diff)
	}
	sums := Sums{
		Groups:       Tally{Live: 473, Deferred: 93, AtBoot: 13, Total: 566},
		Functions:    Tally{Live: 591, Deferred: 290, AtBoot: 13, Total: 881},
		Files:        Tally{Live: 438, Partly: 35, Deferred: 58, AtBoot: 13, Total: 531},
		CVEs:         CVESums{Live: 188, Partly: 35, Deferred: 23, NotBuilt: 671, Unknown: 10, Total: 927, Reach: 246, Strong: 211},
		SourcesKnown: true, ChangesKnown: true,
	}
	if diff := cmp.Diff(sums, r.Sums); diff != "" {
		t.Errorf("Sums (-want +got):\n%s", diff)
	}
	var groups, functions Tally
	for _, s := range r.Subsystems {
		groups.Live += s.Groups.Live
		groups.Deferred += s.Groups.Deferred
		groups.AtBoot += s.Groups.AtBoot
		groups.Total += s.Groups.Total
		functions.Live += s.Functions.Live
	}
	if groups != r.Sums.Groups || functions.Live != 591 {
		t.Errorf("the subsystems have %+v groups and %d live functions", groups, functions.Live)
	}
	waits := 0
	for _, d := range r.Deferred {
		waits += d.Groups
	}
	if waits != 93 {
		t.Errorf("the kinds have %d groups", waits)
	}
	if again := jsonOf(t, Make(large())); !bytes.Equal(again, jsonOf(t, r)) {
		t.Error("two reports of the same are not the same")
	}
}

func TestSummary(t *testing.T) {
	live := splicefile.Group{Files: []string{"fs/a/b.c"}, Units: []string{"fs/a/b.o"}, Functions: []string{"f"}, Live: true}
	two := splicefile.Group{Files: []string{"mm/c.c"}, Functions: []string{"g", "h"}, Live: true}
	wait := splicefile.Group{Files: []string{"net/x.c"}, Functions: []string{"k"}, Reasons: []splicefile.Reason{{Code: "member", What: "struct a.b"}}}
	boot := splicefile.Group{Files: []string{"init/main.c"}, Boot: true}
	var wide []splicefile.Group
	for _, d := range []string{"a", "b", "c", "d"} {
		wide = append(wide, splicefile.Group{Files: []string{d + "/x.c"}, Functions: []string{d}, Live: true})
	}
	for _, c := range []struct {
		name   string
		groups []splicefile.Group
		want   []string
	}{
		{"one", []splicefile.Group{live}, []string{"live after 24 s: 1 function of fs/a now runs the code of 2", "this update needs no reboot"}},
		{"two", []splicefile.Group{live, two}, []string{"live after 24 s: 3 functions of fs/a, mm now run the code of 2", "this update needs no reboot"}},
		{"boot code waits for nothing", []splicefile.Group{live, boot}, []string{"live after 24 s: 1 function of fs/a now runs the code of 2", "this update needs no reboot"}},
		{"one waits", []splicefile.Group{live, wait}, []string{"live after 24 s: 1 function of fs/a now runs the code of 2", "1 waits for the next boot: 1 needs a new struct member (upsplice status --why)"}},
		{"wide", wide, []string{"live after 24 s: 4 of 4 fixes, 4 functions", "this update needs no reboot"}},
	} {
		in := Input{To: splicefile.Kernel{Version: "2"}, Groups: c.groups}
		if diff := cmp.Diff(c.want, Make(in).Summary(24*time.Second)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	m := splicefile.Manifest{ID: "x", Groups: []splicefile.Group{live}, Functions: []splicefile.Function{{Name: "f"}}, Patches: []splicefile.Patch{{Name: "a.patch"}}}
	if got, want := OfSplice(m).Effect(), "1 function of fs/a now runs the patched code"; got != want {
		t.Errorf("of a patch: %q, want %q", got, want)
	}
}

// Every code that the engine documents has words.
func TestKindsAreComplete(t *testing.T) {
	src, err := os.ReadFile("../../splice/splicefile/splicefile.go")
	if err != nil {
		t.Fatal(err)
	}
	_, doc, ok := strings.Cut(string(src), "// Code is stable:")
	doc, _, ok2 := strings.Cut(doc, "Code   string")
	if !ok || !ok2 {
		t.Fatal("the list of codes is not where it was")
	}
	for i, quoted := range strings.Split(doc, `"`) {
		if i%2 == 1 && !slices.ContainsFunc(Kinds(), func(k Kind) bool { return k.Code == quoted }) {
			t.Errorf("no words for the code %q", quoted)
		}
	}
}

// wellFormed reads the page as XML, which no mistake of a template survives.
func wellFormed(t *testing.T, page []byte) (text string) {
	t.Helper()
	var all strings.Builder
	d := xml.NewDecoder(bytes.NewReader(page))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all.String()
		}
		if err != nil {
			t.Fatalf("the page is not well-formed: %v", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Local == "script" || tok.Name.Local == "img" || tok.Name.Local == "link" {
				t.Errorf("the page has <%s>", tok.Name.Local)
			}
			for _, a := range tok.Attr {
				if a.Name.Local == "src" || a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on") {
					t.Errorf("<%s> has %s=%q", tok.Name.Local, a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			all.Write(tok)
		}
	}
}

func TestPageSaysEverything(t *testing.T) {
	r := Make(large())
	text := wellFormed(t, htmlOf(t, r))
	for _, want := range []string{"473 of 566 fixes would be live.", "591 of 881", "about 188 of 246", "6.1.190-1 → 6.1.192-1", "need new struct members", "903 changed sources"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, g := range r.Groups {
		for _, f := range append(slices.Clone(g.Files), g.Functions...) {
			if !strings.Contains(text, f) {
				t.Errorf("the page lacks %q", f)
			}
		}
	}
	for _, c := range r.CVEs {
		if !strings.Contains(text, c.ID) {
			t.Errorf("the page lacks %s", c.ID)
		}
	}
}

func TestPageIsSafe(t *testing.T) {
	const evil = `</style><script>alert(1)</script><img src=x onerror="alert(1)"/>'"&]]>`
	in := small()
	in.ID, in.Description, in.Patches = evil, evil, []string{evil}
	in.From = splicefile.Kernel{Release: evil, Version: evil, Arch: evil}
	in.To = in.From
	in.Policy = Policy{Policy: evil, Allow: []string{evil}, Deny: []string{evil}, Modules: evil, Loaded: []string{evil}}
	in.Notes, in.Fuzz = []string{evil}, []string{evil}
	for i := range in.Groups {
		in.Groups[i].Files = []string{evil, "x/" + evil}
		in.Groups[i].Functions = []string{evil}
		in.Groups[i].Reasons = []splicefile.Reason{{Code: evil, What: evil, Detail: evil}}
	}
	for i := range in.Sources {
		in.Sources[i].Path = evil + "/" + in.Sources[i].Path
	}
	for i := range in.Changes {
		in.Changes[i].Text = evil + in.Changes[i].Text
		in.Changes[i].CVEs = []string{evil}
	}
	for _, page := range [][]byte{htmlOf(t, Make(in)), htmlOf(t, OfSplice(splicefile.Manifest{})), htmlOf(t, Make(Input{}))} {
		wellFormed(t, page)
		if bytes.Contains(page, []byte("<script")) || bytes.Contains(page, []byte("<img")) {
			t.Error("a name has become markup")
		}
	}
}
