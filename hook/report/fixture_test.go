// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/touch"
)

// small has one of each thing.
func small() Input {
	return Input{
		Outcome: outcome.PartlyLive, ID: "3f9c2a",
		From:   splicefile.Kernel{Release: "6.1.0-54-cloud-amd64", Version: "6.1.190-1", Arch: "amd64"},
		To:     splicefile.Kernel{Release: "6.1.0-55-cloud-amd64", Version: "6.1.192-1", Arch: "amd64"},
		Policy: Policy{Policy: "fixes", Allow: []string{}, Deny: []string{"drivers/*"}, Modules: "loaded", Loaded: []string{"ext4", "nf_tables"}},
		Groups: []splicefile.Group{
			{Files: []string{"fs/ext4/balloc.c"}, Units: []string{"fs/ext4/balloc.o"}, Functions: []string{"ext4_free_blocks"}, Live: true},
			{Files: []string{"fs/ext4/inode.c", "fs/ext4/ext4.h"}, Units: []string{"fs/ext4/inode.o", "fs/ext4/super.o"}, Functions: []string{"ext4_write_end", "ext4_put_super.isra.0"}, Live: true},
			{Files: []string{"fs/ext4/inode.c"}, Units: []string{"fs/ext4/inode.o"}, Functions: []string{"ext4_read"},
				Reasons: []splicefile.Reason{{Code: "no-fentry", What: "ext4_read", Detail: "ftrace cannot redirect it"}, {Code: "member", What: "struct ext4_inode_info.i_new", Detail: "the running kernel has no such member"}}},
			{Files: []string{"net/core/sock.c"}, Units: []string{"net/core/sock.o"}, Functions: []string{"sk_clone"},
				Reasons: []splicefile.Reason{{Code: "member", What: "struct sock.sk_new", Detail: "the running kernel has no such member"}}},
			{Files: []string{"kernel/exit.c"}, Units: []string{"kernel/exit.o"}, Functions: []string{"do_exit"},
				Reasons: []splicefile.Reason{{Code: "policy", What: "do_exit", Detail: "the configuration denies :do_exit"}}},
			{Files: []string{"init/main.c"}, Units: []string{"init/main.o"}, Boot: true,
				Reasons: []splicefile.Reason{{Code: "init", What: "start_kernel", Detail: "runs only at boot"}}},
			{Units: []string{}, Functions: []string{}, Reasons: []splicefile.Reason{{Code: "flags", What: "lib/Makefile", Detail: "takes part in the build in a way that is not examined"}}},
			{Files: []string{"mm/x.c"}, Units: []string{"mm/x.o"}, Reasons: []splicefile.Reason{{Code: "newer", What: "y", Detail: "a kind that this table has not got"}}},
		},
		Functions: []splicefile.Function{
			{Name: "ext4_free_blocks", Object: "ext4"}, {Name: "ext4_write_end", Object: "ext4"},
			{Name: "ext4_put_super", Object: "ext4"}, {Name: "ext4_caller", Object: "ext4"},
		},
		Sources: []touch.File{
			{Path: "arch/arm64/kernel/entry.S", Kind: "changed"},
			{Path: "drivers/net/foo.c", Kind: "changed"},
			{Path: "fs/btrfs/super.c", Kind: "changed", Targets: []string{"btrfs"}, Parts: []touch.Part{{Name: "btrfs_mount", Words: []string{"deadlock", "mount"}}}},
			{Path: "fs/ext4/balloc.c", Kind: "changed", Targets: []string{"ext4"}, Parts: []touch.Part{{Name: "ext4_free_blocks", Words: []string{"bitmap", "overflow"}}}},
			{Path: "fs/ext4/ext4.h", Kind: "changed"},
			{Path: "fs/ext4/inode.c", Kind: "changed", Targets: []string{"ext4"}, Parts: []touch.Part{{Name: "ext4_read", Words: []string{"inode", "stale"}}, {Name: "ext4_write_end", Words: []string{"folio", "stale"}}}},
			{Path: "init/main.c", Kind: "changed", Targets: []string{"vmlinux"}, Parts: []touch.Part{{Name: "start_kernel", Words: []string{"cmdline"}}}},
			{Path: "net/core/sock.c", Kind: "changed", Targets: []string{"vmlinux"}, Parts: []touch.Part{{Name: "sk_clone", Words: []string{"refcount"}}}},
			{Path: "net/ipv4/tcp.c", Kind: "changed", Targets: []string{"vmlinux"}, Parts: []touch.Part{{Name: "tcp_close", Words: []string{"linger"}}}},
		},
		Changes: []Change{
			{Text: "ext4: fix bitmap overflow in ext4_free_blocks() (CVE-2026-0001)", CVEs: []string{"CVE-2026-0001"}},
			{Text: "ext4: do not use a stale inode or folio (CVE-2026-0002)", CVEs: []string{"CVE-2026-0002"}},
			{Text: "net: core: fix refcount of the sock in sk_clone() (CVE-2026-0003)", CVEs: []string{"CVE-2026-0003"}},
			{Text: "btrfs: fix deadlock in btrfs_mount() (CVE-2026-0004)", CVEs: []string{"CVE-2026-0004"}},
			{Text: "tcp: ipv4: do not linger in tcp_close() (CVE-2026-0005)", CVEs: []string{"CVE-2026-0005"}},
			{Text: "drivers: net: foo: check the length (CVE-2026-0006)", CVEs: []string{"CVE-2026-0006"}},
			{Text: "xyzzy: plugh (CVE-2026-0007)", CVEs: []string{"CVE-2026-0007"}},
			{Text: "init: main: clear the cmdline in start_kernel() (CVE-2026-0008)", CVEs: []string{"CVE-2026-0008"}},
			{Text: "no id has been given to this"},
		},
		Files: 9, Hunks: 31, Units: 6,
		Notes:  []string{"struct ext4_thing.flag is kept beside the structs: set before it is read, 0 where it is absent"},
		Stages: []build.Timing{{Stage: "compile", Seconds: 12.5}},
	}
}

// large has the numbers that were measured of 6.1.190-1 to 6.1.192-1: 566 groups, 457
// of them single functions, 473 without anything in their way.
func large() Input {
	in := Input{Outcome: outcome.PartlyLive, ID: "3f9c2a", Files: 1908, Hunks: 6167, Units: 310,
		From:   splicefile.Kernel{Release: "6.1.0-54-cloud-amd64", Version: "6.1.190-1", Arch: "amd64"},
		To:     splicefile.Kernel{Release: "6.1.0-55-cloud-amd64", Version: "6.1.192-1", Arch: "amd64"},
		Policy: Policy{Policy: "all", Allow: []string{}, Deny: []string{}, Modules: "installed"},
	}
	dirs := []string{"net/ipv4", "net/ipv6", "kernel/bpf", "kernel/trace", "net/core", "arch/x86/kvm", "fs/ext4", "drivers/pci", "drivers/tty", "net/sched", "security/keys", "drivers/net/vxlan"}
	add := func(i int, file string, functions int, g splicefile.Group) {
		dir := dirs[i%len(dirs)]
		g.Files = []string{dir + "/" + file + ".c"}
		g.Units = []string{dir + "/" + file + ".o"}
		for n := range functions {
			g.Functions = append(g.Functions, fmt.Sprintf("%s_f%d_%d", file, i, n))
		}
		in.Groups = append(in.Groups, g)
	}
	reason := func(code, what string) []splicefile.Reason {
		return []splicefile.Reason{{Code: code, What: what, Detail: "it is not so in the running kernel"}}
	}
	// 473 groups with 591 functions, 93 with 290.
	for i := range 473 {
		functions := 1
		if i >= 473-118 {
			functions = 2
		}
		add(i, fmt.Sprintf("alpha%d", i), functions, splicefile.Group{Live: true})
	}
	for i := range 93 {
		functions := 3
		if i < 11 {
			functions = 4
		}
		g := splicefile.Group{}
		switch {
		case i < 71:
			g.Reasons = reason("member", []string{"struct inet_connection_sock", "struct nf_conntrack_expect", "struct sock", "struct request_queue"}[i%4])
		case i < 86:
			g.Reasons = reason("init", "intel_pmu_init")
		case i < 89:
			g.Reasons = reason("always-running", "io_sq_thread")
		case i < 91:
			g.Reasons = reason("data", "tty_class")
		default:
			g.Reasons = reason("balance", "get_something")
		}
		add(i, fmt.Sprintf("beta%d", i), functions, g)
	}
	for i := range 13 {
		add(i, fmt.Sprintf("gamma%d", i), 1, splicefile.Group{Boot: true})
	}
	// In the files of the first 35 that wait, something else is live: those of CVEs
	// that are laid to the file alone are live in part.
	for i := range 35 {
		g := &in.Groups[473+i]
		g.Files = in.Groups[200+i].Files
	}
	for _, g := range in.Groups[:473+93] {
		if len(in.Functions) < 591 && g.Live {
			for _, f := range g.Functions {
				in.Functions = append(in.Functions, splicefile.Function{Name: f})
			}
		}
	}
	seen := map[string]int{}
	for _, g := range in.Groups {
		at, ok := seen[g.Files[0]]
		if !ok {
			at = len(in.Sources)
			seen[g.Files[0]] = at
			in.Sources = append(in.Sources, touch.File{Path: g.Files[0], Kind: "changed", Targets: []string{"vmlinux"}})
		}
		for _, f := range g.Functions {
			in.Sources[at].Parts = append(in.Sources[at].Parts, touch.Part{Name: f, Words: []string{"lock", "length"}})
		}
	}
	for i := range 903 {
		in.Sources = append(in.Sources, touch.File{Path: fmt.Sprintf("%s/not/built%d.c", []string{"drivers", "drivers", "fs", "net", "sound"}[i%5], i), Kind: "changed"})
	}
	cve := func(format string, arg ...any) {
		id := fmt.Sprintf("CVE-2026-%d", 10000+len(in.Changes))
		in.Changes = append(in.Changes, Change{Text: fmt.Sprintf(format, arg...) + " (" + id + ")", CVEs: []string{id}})
	}
	for i := range 188 {
		cve("alpha%d: fix the length in %s()", i, in.Groups[i].Functions[0])
	}
	for i := range 35 {
		cve("alpha%d: hold back", 200+i)
	}
	for i := range 23 {
		cve("beta%d: fix the length in %s()", 40+i, in.Groups[473+40+i].Functions[0])
	}
	for i := range 671 {
		cve("built%d: check", i)
	}
	for range 10 {
		cve("xyzzy: plugh")
	}
	return in
}
