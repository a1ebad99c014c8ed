// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the built upsplice package as a user meets it: the real .deb
// in a real Debian system.
package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/hook/rig"
)

// deb is the package that `make test` has built.
func deb(t *testing.T) string {
	t.Helper()
	path := os.Getenv("UPSPLICE_DEB")
	if path == "" {
		t.Fatal("UPSPLICE_DEB is not set: run the tests with make test, which builds the package first")
	}
	return path
}

// debian unpacks a Debian system with the package in /root/upsplice.deb, and a
// small package hello in a repository that offers an upgrade.
func debian(t *testing.T) rig.Chroot {
	t.Helper()
	c := rig.Chroot{Dir: filepath.Join(t.TempDir(), "root")}
	if err := rig.Unpack(context.Background(), c.Dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(deb(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "root/upsplice.deb"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, c, `
mkdir -p /srv/hello && cd /srv/hello
for v in 1 2; do
	mkdir -p tree/DEBIAN
	printf 'Package: linux-image-9.9-hello\nVersion: %s\nArchitecture: all\nMaintainer: x <x@x.invalid>\nDescription: x\n' $v > tree/DEBIAN/control
	dpkg-deb -b tree hello_$v.deb
done
apt-ftparchive packages . > Packages
apt-ftparchive -o APT::FTPArchive::Release::Origin=Hello -o APT::FTPArchive::Release::Suite=hello release . > Release
rm -f /etc/apt/sources.list.d/* && echo "deb [trusted=yes] file:/srv/hello ./" > /etc/apt/sources.list
apt-get -q update && dpkg -i hello_1.deb`)
	return c
}

func sh(t *testing.T, c rig.Chroot, script string) string {
	t.Helper()
	out, err := c.Run(context.Background(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func exists(c rig.Chroot, path string) bool {
	_, err := os.Lstat(filepath.Join(c.Dir, path))
	return err == nil
}

func TestPackageComesAndGoes(t *testing.T) {
	c := debian(t)
	sh(t, c, "apt-get -q -y install /root/upsplice.deb")
	for _, path := range []string{"/usr/bin/upsplice", "/etc/apt/apt.conf.d/90upsplice", "/etc/upsplice/upsplice.toml",
		"/usr/lib/upsplice/backends/debian", "/usr/lib/upsplice/backends/SHA256SUMS", "/usr/share/man/man8/upsplice.8.gz",
		"/usr/share/bash-completion/completions/upsplice", "/var/lib/upsplice", "/var/cache/upsplice",
		"/etc/systemd/system/sysinit.target.wants/upsplice-boot.service",
		"/etc/systemd/system/multi-user.target.wants/upsplice-watch.service"} {
		if !exists(c, path) {
			t.Errorf("after installing, %s is missing", path)
		}
	}
	if out := sh(t, c, "getent passwd _upsplice; stat -c %U /var/cache/upsplice"); !strings.Contains(out, "\n_upsplice") {
		t.Errorf("the cache does not belong to the build user: %s", out)
	}
	sh(t, c, "upsplice status && upsplice --help && upsplice uname -r")

	// An upgrade keeps what the administrator changed.
	sh(t, c, `echo '# mine' >> /etc/upsplice/upsplice.toml
dpkg-deb -R /root/upsplice.deb /root/next && sed -i 's/^Version: .*/Version: 999/' /root/next/DEBIAN/control
dpkg-deb -b /root/next /root/next.deb && apt-get -q -y install /root/next.deb && grep -q '# mine' /etc/upsplice/upsplice.toml`)

	sh(t, c, "apt-get -q -y remove upsplice")
	if exists(c, "/usr/bin/upsplice") || !exists(c, "/etc/apt/apt.conf.d/90upsplice") {
		t.Error("after removing, the program is there or the configuration is not")
	}
	// The configuration stays behind, and apt must not stumble over it.
	if out := sh(t, c, "apt-get -q -y install linux-image-9.9-hello 2>&1"); strings.Contains(out, "upsplice") {
		t.Errorf("apt speaks of upsplice after it was removed:\n%s", out)
	}
	sh(t, c, "apt-get -q -y purge upsplice")
	for _, path := range []string{"/etc/apt/apt.conf.d/90upsplice", "/etc/upsplice", "/var/lib/upsplice", "/var/cache/upsplice",
		"/etc/systemd/system/sysinit.target.wants/upsplice-boot.service"} {
		if exists(c, path) {
			t.Errorf("after purging, %s is there", path)
		}
	}
	if out, err := c.Run(context.Background(), "getent passwd _upsplice"); err == nil {
		t.Errorf("after purging, the user is there: %s", out)
	}
}

// apt ends as it would have ended without us, however broken we are.
func TestAptSurvivesABrokenUpsplice(t *testing.T) {
	c := debian(t)
	sh(t, c, "apt-get -q -y install /root/upsplice.deb")
	for _, fault := range []struct{ name, script string }{
		{"working", "true"},
		{"unknown configuration key", "echo 'nonsense = 1' >> /etc/upsplice/upsplice.toml"},
		{"state is a file", "rm -rf /var/lib/upsplice && touch /var/lib/upsplice"},
		{"damaged journal", "rm -rf /var/lib/upsplice && mkdir /var/lib/upsplice && echo '{' > /var/lib/upsplice/queue.json"},
		{"backend replaced", "echo '#!/bin/sh' > /usr/lib/upsplice/backends/debian"},
		{"backend missing", "rm /usr/lib/upsplice/backends/debian"},
		{"build user missing", "deluser --quiet _upsplice"},
		{"program that fails", "printf '#!/bin/sh\nexit 3\n' > /usr/bin/upsplice"},
		{"program that is killed", "printf '#!/bin/sh\nkill -9 $$\n' > /usr/bin/upsplice"},
		{"program of another machine", "printf '\\177ELF' > /usr/bin/upsplice"},
		{"not executable", "chmod -x /usr/bin/upsplice"},
		{"missing", "rm /usr/bin/upsplice"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			sh(t, c, fault.script+"; dpkg -i --force-downgrade /srv/hello/hello_1.deb >/dev/null 2>&1; rm -f /var/cache/apt/*.bin") // apt looks at whole seconds
			out := sh(t, c, "apt-get -q -y upgrade 2>&1 </dev/null; echo status $?")
			if !strings.Contains(out, "status 0") {
				t.Errorf("apt failed:\n%s", out)
			}
			if got := sh(t, c, "dpkg-query -W -f '${Version}' linux-image-9.9-hello"); got != "2" {
				t.Errorf("version %s is installed, want 2; apt said:\n%s", got, out)
			}
		})
	}
}

// unattended-upgrades reads apt's configuration twice; the hook must run once.
func TestUnattendedUpgradesRunTheHookOnce(t *testing.T) {
	c := debian(t)
	sh(t, c, `apt-get -q -y install /root/upsplice.deb
mv /usr/bin/upsplice /usr/bin/upsplice.real
printf '#!/bin/sh\necho "$@" >> /root/calls\nexec /usr/bin/upsplice.real "$@"\n' > /usr/bin/upsplice
chmod +x /usr/bin/upsplice
echo 'Unattended-Upgrade::Origins-Pattern { "origin=Hello"; };' > /etc/apt/apt.conf.d/99hello
unattended-upgrade -v </dev/null`)
	if got := sh(t, c, "dpkg-query -W -f '${Version}' linux-image-9.9-hello"); got != "2" {
		t.Fatalf("unattended-upgrades did not upgrade: version %s", got)
	}
	calls := sh(t, c, "cat /root/calls")
	if n := strings.Count(calls, "hook apt\n"); n != 1 {
		t.Errorf("the hook ran %d times:\n%s", n, calls)
	}
	if n := strings.Count(calls, "hook apt --post\n"); n != 1 {
		t.Errorf("the hook ran %d times afterwards:\n%s", n, calls)
	}
}
