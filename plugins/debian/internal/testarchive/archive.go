// SPDX-License-Identifier: Apache-2.0

// Package testarchive makes a small Debian archive for tests: real .debs, a real
// index, served over HTTP to the real apt with a configuration of its own. What
// the server does with a request can be changed, to be a mirror that fails.
package testarchive

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/upsplice/upsplice/plugins/backend"
)

// The kernels of the archive. Their numbers are far from any real ones.
const (
	OldRelease = "6.1.0-901-cloud-amd64"
	OldVersion = "6.1.901-1"
	NewRelease = "6.1.0-902-cloud-amd64"
	NewVersion = "6.1.902-1"
	// GoneVersion is one that the archive had once; the snapshot archive has it.
	GoneRelease = "6.1.0-900-cloud-amd64"
	GoneVersion = "6.1.900-1"
	// OtherRelease is a kernel of another series.
	OtherRelease = "6.12.101+deb12-cloud-amd64"
	OtherVersion = "6.12.101-1~deb12u1"
)

// Kernel is how a backend describes a kernel of the archive.
func Kernel(release, version string) backend.Kernel {
	source, flavour := "linux", "6.1-cloud-amd64"
	if release == OtherRelease {
		source, flavour = "linux-6.12", "6.12-cloud-amd64"
	}
	return backend.Kernel{Release: release, Flavour: flavour, Arch: "amd64", Package: "linux-image-" + release,
		Version: version, Source: source, SourceVersion: version}
}

// Archive is a running archive.
type Archive struct {
	URL  string
	Pool string // directory of the .debs
	Gone string // directory of the .debs that only the snapshot archive has
	Conf string // apt's configuration, for APT_CONFIG

	mu   sync.Mutex
	hook http.HandlerFunc
}

// New makes the archive and lets apt read its index.
func New(t testing.TB) *Archive {
	t.Helper()
	dir := t.TempDir()
	a := &Archive{Pool: filepath.Join(dir, "pool"), Gone: filepath.Join(dir, "gone"), Conf: filepath.Join(dir, "apt.conf")}
	mkdir(t, a.Pool, a.Gone)
	for _, k := range []struct{ into, release, version string }{
		{a.Pool, OldRelease, OldVersion}, {a.Pool, NewRelease, NewVersion},
		{a.Pool, OtherRelease, OtherVersion}, {a.Gone, GoneRelease, GoneVersion},
	} {
		a.addKernel(t, k.into, k.release, k.version)
	}
	// Archives keep one kbuild package of a series; the newest serves all.
	a.addDeb(t, a.Pool, "linux-kbuild-6.1", NewVersion, "amd64", "", map[string]string{
		"usr/lib/linux-kbuild-6.1/scripts/basic/fixdep": "tool", "usr/lib/linux-kbuild-6.1/tools/objtool/objtool": "tool"})
	a.addDeb(t, a.Pool, "linux-kbuild-6.12.101+deb12", OtherVersion, "amd64", "", map[string]string{
		"usr/lib/linux-kbuild-6.12.101+deb12/scripts/basic/fixdep": "tool"})
	a.addDeb(t, a.Pool, "linux-image-cloud-amd64", NewVersion, "amd64", "Depends: linux-image-"+NewRelease, nil)
	a.addDeb(t, a.Pool, "hello", "2.10-3", "amd64", "", map[string]string{"usr/bin/hello": "hello"})

	s := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(s.Close)
	a.URL = s.URL
	a.configure(t, dir)
	a.Update(t)
	return a
}

func (a *Archive) configure(t testing.TB, dir string) {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "etc"} {
		mkdir(t, filepath.Join(dir, d))
	}
	write(t, filepath.Join(dir, "status"), "")
	write(t, filepath.Join(dir, "etc/sources.list"), "deb [trusted=yes] "+a.URL+"/pool ./\n")
	write(t, a.Conf, fmt.Sprintf(`
Dir::State %q; Dir::State::status %q; Dir::Cache %q; Dir::Etc %q;
Dir::Etc::parts "/nonexistent"; Dir::Etc::sourceparts "/nonexistent"; Dir::Etc::preferencesparts "/nonexistent";
APT::Architecture "amd64"; APT::Architectures { "amd64"; }; APT::Sandbox::User "root";
Acquire::http::Proxy "DIRECT"; Acquire::Languages "none"; Acquire::http::Timeout "10";
`, dir+"/state", dir+"/status", dir+"/cache", dir+"/etc"))
}

// Update writes the index anew and lets apt read it.
func (a *Archive) Update(t testing.TB) {
	t.Helper()
	cmd := exec.Command("apt-ftparchive", "packages", ".")
	cmd.Dir = a.Pool
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running apt-ftparchive (package apt-utils): %v", err)
	}
	write(t, filepath.Join(a.Pool, "Packages"), string(out))
	cmd = exec.Command("apt-get", "update", "-q")
	cmd.Env = append(os.Environ(), "APT_CONFIG="+a.Conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("running apt-get update: %v\n%s", err, out)
	}
}

// Handle lets h answer requests for packages, nil ends that. h may call Serve.
func (a *Archive) Handle(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hook = h
}

func (a *Archive) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	h := a.hook
	a.mu.Unlock()
	if h != nil && strings.HasSuffix(r.URL.Path, ".deb") {
		h(w, r)
		return
	}
	a.Serve(w, r)
}

// Serve answers as a mirror and as a snapshot archive that work.
func (a *Archive) Serve(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, "/mr/binary/"):
		a.binfiles(w, strings.Split(strings.TrimPrefix(path, "/mr/binary/"), "/"))
	case strings.HasPrefix(path, "/file/"):
		if file := a.bySHA1()[strings.TrimPrefix(path, "/file/")]; file != "" {
			http.ServeFile(w, r, file)
			return
		}
		http.NotFound(w, r)
	case strings.HasPrefix(path, "/pool/"):
		http.StripPrefix("/pool/", http.FileServer(http.Dir(a.Pool))).ServeHTTP(w, r)
	default:
		http.NotFound(w, r)
	}
}

// binfiles is the snapshot archive's answer for NAME/VERSION/binfiles.
func (a *Archive) binfiles(w http.ResponseWriter, parts []string) {
	if len(parts) == 3 {
		for sum, file := range a.bySHA1() {
			f := strings.Split(strings.TrimSuffix(filepath.Base(file), ".deb"), "_")
			if f[0] == parts[0] && f[1] == parts[1] {
				fi, err := os.Stat(file)
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				fmt.Fprintf(w, `{"result":[{"architecture":%q,"hash":%q}],"fileinfo":{%q:[{"size":%d}]}}`, f[2], sum, sum, fi.Size())
				return
			}
		}
	}
	w.WriteHeader(http.StatusNotFound)
}

func (a *Archive) bySHA1() map[string]string {
	files, _ := filepath.Glob(filepath.Join(a.Gone, "*.deb"))
	out := map[string]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil {
			sum := sha1.Sum(data)
			out[hex.EncodeToString(sum[:])] = f
		}
	}
	return out
}

func (a *Archive) addKernel(t testing.TB, pool, release, version string) {
	abi, _, _ := strings.Cut(release, "-cloud")
	series := strings.Join(strings.Split(version, ".")[:2], ".")
	kbuild := "linux-kbuild-" + series + " (>= " + version + ")"
	if strings.Contains(abi, "+") {
		kbuild = "linux-kbuild-" + abi
	}
	source := "linux"
	if series != "6.1" {
		source += "-" + series
	}
	image := "linux-image-" + release
	src := "usr/src/linux-headers-" + release
	module, dir, ext := "module", "lib/modules/"+release+"/kernel/fs/", ""
	if release == OtherRelease {
		// As newer kernels have them.
		module, dir, ext = command(t, module, "xz", "--check=crc32"), "usr/"+dir, ".xz"
	}
	a.addDeb(t, pool, image, version, "amd64",
		"Source: "+strings.Replace(source, "linux", "linux-signed", 1)+"-amd64 ("+strings.Replace(version, "-", "+", 1)+")\n"+
			"Built-Using: "+source+" (= "+version+")", map[string]string{
			"boot/vmlinuz-" + release:                  noise(100_000),
			"boot/config-" + release:                   "CONFIG_X=y\n",
			dir + "a.ko" + ext:                         module,
			dir + "b.ko" + ext:                         module,
			"usr/share/doc/" + image + "/changelog.gz": changelog(t, "linux-signed-amd64", version),
		})
	a.addDeb(t, pool, "linux-headers-"+release, version, "amd64",
		"Source: "+source+"\nDepends: linux-headers-"+abi+"-common (= "+version+"), "+kbuild+", linux-compiler-gcc-12-x86", map[string]string{
			src + "/.config":                      "CONFIG_X=y\n",
			src + "/.kernelvariables":             "CC = $(CROSS_COMPILE)gcc-12\n",
			src + "/include/generated/autoconf.h": "#define CONFIG_X 1\n",
			src + "/scripts":                      "-> ../../lib/linux-kbuild-" + series + "/scripts",
			"lib/modules/" + release + "/build":   "-> /" + src,
		})
	a.addDeb(t, pool, "linux-headers-"+abi+"-common", version, "all", "Source: "+source, map[string]string{
		"usr/src/linux-headers-" + abi + "-common/include/linux/x.h": "int x;\n"})
	a.addDeb(t, pool, "linux-source-"+series, version, "all", "Source: "+source, map[string]string{
		"usr/src/linux-source-" + series + ".tar.xz":                    noise(400_000),
		"usr/share/doc/linux-source-" + series + "/changelog.Debian.gz": changelog(t, source, version),
	})
}

// changelog reaches from a version to the oldest of the archive.
func changelog(t testing.TB, source, version string) string {
	var text strings.Builder
	versions := []string{NewVersion, OldVersion, GoneVersion}
	for len(versions) > 0 && versions[0] != version {
		versions = versions[1:]
	}
	for i, v := range versions {
		if i == 0 && source != "linux" {
			v = strings.Replace(v, "-", "+", 1)
		} else {
			source = "linux"
		}
		fmt.Fprintf(&text, "%s (%s) bookworm-security; urgency=high\n\n  * New upstream stable update:\n    - fix of %s that takes\n      two lines (CVE-2026-1234)\n\n -- A <a@example.org>  Mon, 16 Nov 2026 11:17:40 +0100\n\n", source, v, v)
	}
	return command(t, text.String(), "gzip", "-9n")
}

// command is what a program makes of in.
func command(t testing.TB, in string, args ...string) string {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("running %s: %v", args[0], err)
	}
	return string(out)
}

// noise does not compress, so that files have the size they are meant to have.
func noise(n int) string {
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return string(b)
}

// addDeb builds a package. A file's content "-> X" makes a link.
func (a *Archive) addDeb(t testing.TB, pool, name, version, arch, fields string, files map[string]string) {
	t.Helper()
	root := t.TempDir()
	if fields != "" {
		fields += "\n"
	}
	mkdir(t, filepath.Join(root, "DEBIAN"))
	write(t, filepath.Join(root, "DEBIAN/control"), fmt.Sprintf(
		"Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: A <a@example.org>\nSection: kernel\nPriority: optional\n%sDescription: test\n a test\n",
		name, version, arch, fields))
	for path, content := range files {
		path = filepath.Join(root, path)
		mkdir(t, filepath.Dir(path))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, path, content)
	}
	cmd := exec.Command("dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "-b", root,
		filepath.Join(pool, name+"_"+version+"_"+arch+".deb"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("running dpkg-deb: %v\n%s", err, bytes.TrimSpace(out))
	}
}

func mkdir(t testing.TB, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
