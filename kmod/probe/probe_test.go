// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
)

const release = "6.1.0-55-cloud-amd64"

func file(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }

// capable is a system on which everything is allowed.
func capable() fstest.MapFS {
	return fstest.MapFS{
		"proc/sys/kernel/osrelease":                file(release + "\n"),
		"proc/sys/kernel/modules_disabled":         file("0\n"),
		"proc/kallsyms":                            file("0000000000000000 A percpu\nffffffff81000000 T _stext\n"),
		"sys/kernel/notes":                         file("\x04\x00\x00\x00\x04\x00\x00\x00\x03\x00\x00\x00GNU\x00\xab\xcd\xef\x01"),
		"sys/kernel/livepatch":                     {Mode: fs.ModeDir | 0o755},
		"sys/kernel/security/lockdown":             file("[none] integrity confidentiality\n"),
		"sys/kernel/security/lsm":                  file("lockdown,apparmor"),
		"sys/module/module/parameters/sig_enforce": file("N\n"),
		"boot/config-" + release:                   file("# comment\nCONFIG_LIVEPATCH=y\n# CONFIG_X is not set\n"),
	}
}

func gz(s string) *fstest.MapFile {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(s))
	w.Close()
	return &fstest.MapFile{Data: b.Bytes()}
}

func TestRun(t *testing.T) {
	k := Run(capable())
	if k.Release != release || k.BuildID != "abcdef01" {
		t.Errorf("release %q, build id %q", k.Release, k.BuildID)
	}
	type want struct {
		what   string // field
		answer Answer
		text   string // part of the detail or the remedy
	}
	for name, c := range map[string]struct {
		change fstest.MapFS // a nil file removes the path and all below
		want   []want
	}{
		"all well": {nil, []want{{"livepatch", Yes, ""}, {"module", Yes, ""}, {"kallsyms", Yes, ""}, {"kcore", No, "kcore"}}},
		"nothing mounted": {fstest.MapFS{"proc": nil, "sys": nil, "boot": nil},
			[]want{{"livepatch", Unknown, "mount sysfs"}, {"module", Unknown, "mount"}, {"kallsyms", Unknown, ""}, {"kcore", Unknown, ""}}},
		"no livepatch in sysfs, no config":      {fstest.MapFS{"sys/kernel/livepatch": nil, "boot": nil}, []want{{"livepatch", No, "CONFIG_LIVEPATCH"}}},
		"no livepatch in sysfs, config says no": {fstest.MapFS{"sys/kernel/livepatch": nil, "boot/config-" + release: file("CONFIG_A=y\n")}, []want{{"livepatch", No, "/boot/config"}}},
		"no livepatch in sysfs, config has it":  {fstest.MapFS{"sys/kernel/livepatch": nil}, []want{{"livepatch", Unknown, "containers"}}},
		"no sysfs, own config says no": {fstest.MapFS{"sys": nil, "boot": nil, "proc/config.gz": gz("CONFIG_A=y\n")},
			[]want{{"livepatch", No, "/proc/config.gz"}, {"module", Unknown, ""}}},
		"own config before that of /boot": {fstest.MapFS{"sys": nil, "proc/config.gz": gz("CONFIG_A=y\n")}, []want{{"livepatch", No, "/proc/config.gz"}}},
		"broken own config":               {fstest.MapFS{"sys": nil, "boot": nil, "proc/config.gz": file("\x1f\x8b\x08trunc")}, []want{{"livepatch", Unknown, ""}}},
		"lockdown integrity":              {fstest.MapFS{"sys/kernel/security/lockdown": file("none [integrity] confidentiality\n")}, []want{{"module", No, "Secure Boot"}, {"module", No, "mokutil --import"}, {"signed", Yes, ""}}},
		"lockdown confidentiality":        {fstest.MapFS{"sys/kernel/security/lockdown": file("none integrity [confidentiality]\n")}, []want{{"module", No, "confidentiality"}}},
		"lockdown unreadable form":        {fstest.MapFS{"sys/kernel/security/lockdown": file("something new\n")}, []want{{"module", Unknown, "something new"}}},
		"kernel without lockdown":         {fstest.MapFS{"sys/kernel/security/lockdown": nil}, []want{{"module", Yes, ""}}},
		"securityfs not mounted":          {fstest.MapFS{"sys/kernel/security": nil}, []want{{"module", Unknown, "mount securityfs"}}},
		"sig_enforce":                     {fstest.MapFS{"sys/module/module/parameters/sig_enforce": file("Y\n")}, []want{{"module", No, "module.sig_enforce"}, {"module", No, "openssl req"}, {"signed", Yes, ""}}},
		"no signatures in the kernel":     {fstest.MapFS{"sys/module/module": nil, "sys/module/ext4/refcnt": file("1")}, []want{{"module", Yes, ""}}},
		"modules disabled":                {fstest.MapFS{"proc/sys/kernel/modules_disabled": file("1\n")}, []want{{"module", No, "next boot"}, {"signed", No, "next boot"}}},
		"no module support":               {fstest.MapFS{"proc/sys/kernel/modules_disabled": nil}, []want{{"module", No, "CONFIG_MODULES"}}},
		"a no is stronger than a don't know": {fstest.MapFS{"sys/kernel/security": nil, "sys/module/module/parameters/sig_enforce": file("Y\n")},
			[]want{{"module", No, "sig_enforce"}}},
		"hidden addresses": {fstest.MapFS{"proc/kallsyms": file("0000000000000000 T a\n0000000000000000 T b\n")}, []want{{"kallsyms", No, "kptr_restrict"}}},
		"garbage kallsyms": {fstest.MapFS{"proc/kallsyms": file("garbage")}, []want{{"kallsyms", Unknown, "line 1"}}},
		"garbage kcore":    {fstest.MapFS{"proc/kcore": file(strings.Repeat("x", 100))}, []want{{"kcore", Unknown, "ELF"}}},
	} {
		root := capable()
		maps.Copy(root, c.change)
		for path, f := range c.change {
			if f == nil {
				maps.DeleteFunc(root, func(p string, _ *fstest.MapFile) bool { return p == path || strings.HasPrefix(p, path+"/") })
			}
		}
		k := Run(root)
		for _, w := range c.want {
			f := map[string]Finding{"livepatch": k.Livepatch, "module": k.UnsignedModule, "signed": k.SignedModule, "kallsyms": k.Kallsyms, "kcore": k.Kcore}[w.what]
			if f.Answer != w.answer || !strings.Contains(f.Detail+" "+f.Remedy, w.text) {
				t.Errorf("%s: %s: %v %q %q; want %v, %q", name, w.what, f.Answer, f.Detail, f.Remedy, w.answer, w.text)
			}
			if f.Answer != Yes && f.Detail == "" {
				t.Errorf("%s: %s: no detail", name, w.what)
			}
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("CONFIG_A=y\n"))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, in []byte) {
		Run(fstest.MapFS{"proc/config.gz": {Data: in}, "boot/config-x": {Data: in}, "proc/sys/kernel/osrelease": file("x"), "sys/kernel/security/lockdown": {Data: in}})
	})
}

// TestRealKernel asks a shipped kernel, as it comes and locked down.
func TestRealKernel(t *testing.T) {
	k := lab.NeedNewest(t, lab.Image)
	prog := vmtest.BuildStatic(t, "./testdata/probeprog", false)
	for _, c := range []struct {
		append        string
		module, kcore Answer
	}{
		{"", Yes, Yes},
		{"lockdown=confidentiality", No, No},
	} {
		r := vmtest.RunInVM(t, k, "/bin/prog", map[string]string{"bin/prog": prog}, func(m *vmtest.Machine) { m.Append = c.append })
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(r.Console, "PROBE ")
		text, _, _ = strings.Cut(text, "\n")
		var got Kernel
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if got.Release != k.Release || len(got.BuildID) != 40 {
			t.Errorf("%q: release %q, build id %q", c.append, got.Release, got.BuildID)
		}
		if got.Livepatch.Answer != Yes || got.UnsignedModule.Answer != c.module || got.Kcore.Answer != c.kcore || got.Kallsyms.Answer != Yes {
			t.Errorf("%q: %+v", c.append, got)
		}
	}
}
