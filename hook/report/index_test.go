// SPDX-License-Identifier: Apache-2.0

package report

import (
	"testing"

	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/touch"
)

// The subjects are of a real changelog; the words are those of the real hunks.
func TestFind(t *testing.T) {
	part := func(name string, words ...string) touch.Part { return touch.Part{Name: name, Words: words} }
	ix := newIndex([]touch.File{
		{Path: "drivers/greybus/raw.c", Parts: []touch.Part{part("gb_raw_disconnect", "cdev_del", "cdev", "registered")}},
		{Path: "fs/nfsd/filecache.c", Parts: []touch.Part{part("nfsd_file_put", "nfsd_file", "leak")}},
		{Path: "fs/nfsd/trace.h", Parts: []touch.Part{part("nfsd_fh_verify", "inter", "server", "setup", "copy")}},
		{Path: "fs/nfsd/nfs4proc.c", Parts: []touch.Part{part("nfsd4_copy", "nfsd_file", "inter", "server", "setup")}},
		{Path: "fs/smb/server/smbacl.c", Parts: []touch.Part{part("parse_dacl", "dacl", "aces"), part("set_mode_dacl", "dacl")}},
		{Path: "net/ipv6/ip6mr.c", Parts: []touch.Part{part("ip6mr_cache_report", "dst", "skb_dst_set"), part("ip6mr_rtm_dumproute", "skb")}},
		{Path: "net/netfilter/nft_limit.c", Parts: []touch.Part{part("nft_limit_clone", "clone")}},
		{Path: "Documentation/networking/ip6mr_cache_report.rst", Parts: []touch.Part{part("ip6mr_cache_report", "ip6mr_cache_report")}},
	})
	for _, c := range []struct {
		subject string
		file    string // "": none
		part    string
		want    Certainty
	}{
		{"ip6mr: do not clone dst in ip6mr_cache_report() (CVE-2026-90111)", "net/ipv6/ip6mr.c", "ip6mr_cache_report", Strong},
		{"[arm64] ip6mr: do not clone dst in ip6mr_cache_report()", "net/ipv6/ip6mr.c", "ip6mr_cache_report", Strong},
		{"nfsd: fix nfsd_file leak on inter-server COPY setup failure (CVE-2026-89680)", "fs/nfsd/nfs4proc.c", "nfsd4_copy", Strong},
		{"ksmbd: bound DACL dedup walk to copied ACEs (CVE-2026-68098)", "fs/smb/server/smbacl.c", "parse_dacl", Strong},
		{"nfsd: fix the setup of a server", "fs/nfsd/nfs4proc.c", "nfsd4_copy", Weak},
		{"xyzzy: plugh", "", "", ""},
		{"", "", "", ""},
		{"::: (", "", "", ""},
	} {
		m, ok := ix.find(c.subject)
		if !ok {
			if c.file != "" {
				t.Errorf("%q: nothing is found", c.subject)
			}
			continue
		}
		if m.file.Path != c.file || !m.parts[c.part] || m.certainty != c.want {
			t.Errorf("%q: %s %v, %s; want %s %s, %s", c.subject, m.file.Path, m.parts, m.certainty, c.file, c.part, c.want)
		}
	}
	if _, ok := newIndex(nil).find("net: fix f() (CVE-1)"); ok {
		t.Error("something is found in nothing")
	}
}

// What is not told apart is said to be weak.
func TestCVEOfOneOfSeveralGroups(t *testing.T) {
	in := Input{
		Groups: []splicefile.Group{
			{Files: []string{"net/a.c"}, Functions: []string{"one"}, Live: true},
			{Files: []string{"net/a.c"}, Functions: []string{"two"}, Reasons: []splicefile.Reason{{Code: "member"}}},
			{Files: []string{"net/a.c"}, Functions: []string{"three.isra.0"}, Live: true},
		},
		Sources: []touch.File{
			{Path: "net/a.c", Targets: []string{"vmlinux"}, Parts: []touch.Part{
				{Name: "inlined", Words: []string{"inlined", "overrun"}}, {Name: "one", Words: []string{"bounds"}},
				{Name: "three", Words: []string{"refcount"}}, {Name: "two", Words: []string{"race"}},
			}},
			{Path: "net/b.h", Parts: []touch.Part{{Name: "helper", Words: []string{"saturate"}}}},
		},
		Changes: []Change{
			{"net: a: stop the overrun in inlined()", []string{"CVE-1"}},
			{"net: a: fix the race in two()", []string{"CVE-2"}},
			{"net: a: fix the refcount in three()", []string{"CVE-3"}},
			{"net: b: saturate in helper()", []string{"CVE-4"}},
			{"net: a: fix the bounds of one()", []string{"CVE-3"}},
			{"net: a: fix the race in two(), again", []string{"CVE-5"}},
			{"net: a: fix the bounds of one(), again", []string{"CVE-5"}},
		},
	}
	want := map[string]struct {
		state State
		sure  Certainty
	}{
		"CVE-1": {Partly, Weak}, "CVE-2": {Deferred, Strong}, "CVE-3": {Live, Strong}, "CVE-4": {Unknown, ""}, "CVE-5": {Partly, Strong},
	}
	r := Make(in)
	if len(r.CVEs) != len(want) {
		t.Errorf("%d ids", len(r.CVEs))
	}
	for _, c := range r.CVEs {
		if w := want[c.ID]; c.State != w.state || c.Certainty != w.sure {
			t.Errorf("%s is %s, %q; want %s, %q", c.ID, c.State, c.Certainty, w.state, w.sure)
		}
	}
	if s := r.Sums.CVEs; s.Total != 5 || s.Reach != 4 || s.Live != 1 || s.Partly != 2 {
		t.Errorf("sums: %+v", s)
	}
	in.Changes = nil
	if s := Make(in).Sums; s.ChangesKnown || s.CVEs.Total != 0 {
		t.Errorf("without a changelog: %+v", s)
	}
	in.Changes, in.Sources = []Change{{"net: fix one()", []string{"CVE-1"}}}, nil
	if s := Make(in).Sums; s.SourcesKnown || s.CVEs.Unknown != 1 {
		t.Errorf("without sources: %+v", s)
	}
}
