// SPDX-License-Identifier: Apache-2.0

// Package rig makes the Debian system that the demonstration and the tests run
// upsplice in: a disk with a real Debian user land and an older kernel, and a
// second disk with a package repository that has the newer one.
//
// What is not from the archive is named here: the metapackage of the older
// kernel. Archives keep only the newest linux-image-FLAVOUR, so the older one is
// made from it by setting back its version and its dependency.
package rig

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Options of Build.
type Options struct {
	From, To lab.Kernel        // with every part fetched
	Package  string            // upsplice_VERSION_ARCH.deb
	Prepared bool              // run "upsplice prepare" on the disk, as on a machine that has had upsplice for a while
	Files    map[string]string // further files, guest path to contents; mode 0755
	Enable   []string          // systemd units to enable
	Log      io.Writer
}

// System is a finished pair of disks. Both are opened with snapshots, so that one
// System serves many boots.
type System struct {
	From, To lab.Kernel
	Disk     string // root file system, /dev/nvme0n1
	Repo     string // package repository, /dev/nvme1n1, to be mounted at /srv/repo
}

// Build makes the system in dir. The guest mounts /dev/nvme1n1 at /srv/repo itself. It needs root: it runs the package manager in a
// chroot.
func Build(ctx context.Context, dir string, opt Options) (*System, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("making a Debian disk: root is needed, for chroot and package ownership")
	}
	b := &builder{Options: opt, dir: dir}
	if b.Log == nil {
		b.Log = io.Discard
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a Debian disk: %w", err)
	}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"making a package repository", b.repository},
		{"unpacking Debian", func(ctx context.Context) error { return Unpack(ctx, b.path("root")) }},
		{"installing the older kernel and upsplice", b.install},
		{"writing the disks", b.disks},
	}
	for _, s := range steps {
		start := time.Now()
		if err := s.run(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(b.Log, "%s: %.0f s\n", s.name, time.Since(start).Seconds())
	}
	return &System{From: opt.From, To: opt.To, Disk: b.path("root.ext4"), Repo: b.path("repo.ext4")}, nil
}

type builder struct {
	Options
	dir string
}

func (b *builder) path(name string) string { return filepath.Join(b.dir, name) }

// repository collects the packages that the archive has for both kernels and
// indexes them twice: the state before the update, and the one with it.
func (b *builder) repository(ctx context.Context) error {
	repo := b.path("repo")
	if err := os.RemoveAll(repo); err != nil {
		return err
	}
	for _, side := range []struct {
		suite  string
		kernel lab.Kernel
	}{{"old", b.From}, {"new", b.To}} {
		pool := filepath.Join(repo, "pool", side.suite)
		if err := os.MkdirAll(pool, 0o755); err != nil {
			return err
		}
		k := side.kernel
		for _, deb := range []string{k.ImageDeb, k.HeadersDeb, k.CommonDeb, k.KbuildDeb, k.SourceDeb} {
			if err := linkOrCopy(deb, filepath.Join(pool, filepath.Base(deb))); err != nil {
				return err
			}
		}
		if err := b.metapackage(ctx, k, pool); err != nil {
			return err
		}
		if err := b.index(ctx, repo, side.suite); err != nil {
			return err
		}
	}
	return nil
}

// metapackage puts linux-image-FLAVOUR for k into pool.
func (b *builder) metapackage(ctx context.Context, k lab.Kernel, pool string) error {
	work := b.path("meta")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	name := "linux-image-" + k.Flavour
	script := `cd "$1" && apt-get download -q -q "$2" && dpkg-deb -R "$2"_*.deb tree && rm "$2"_*.deb`
	if err := run(ctx, "sh", "-ec", script, "sh", work, name); err != nil {
		return err
	}
	control := filepath.Join(work, "tree", "DEBIAN", "control")
	text, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		switch field, _, _ := strings.Cut(line, ":"); field {
		case "Version":
			lines[i] = "Version: " + k.Version
		case "Depends":
			lines[i] = fmt.Sprintf("Depends: linux-image-%s (= %s)", k.Release, k.Version)
		}
	}
	if err := os.WriteFile(control, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		return err
	}
	deb := filepath.Join(pool, fmt.Sprintf("%s_%s_amd64.deb", name, k.Version))
	return run(ctx, "dpkg-deb", "--root-owner-group", "-b", filepath.Join(work, "tree"), deb)
}

func (b *builder) index(ctx context.Context, repo, suite string) error {
	script := `cd "$1" && d=dists/$2/main/binary-amd64 && mkdir -p $d &&
apt-ftparchive packages pool/$2 > $d/Packages &&
apt-ftparchive -o APT::FTPArchive::Release::Suite=$2 -o APT::FTPArchive::Release::Codename=$2 \
	-o APT::FTPArchive::Release::Architectures=amd64 -o APT::FTPArchive::Release::Components=main \
	release dists/$2 > Release.tmp && mv Release.tmp dists/$2/Release`
	return run(ctx, "sh", "-ec", script, "sh", repo, suite)
}

// Sources lists in the guest: before the update only "old" is offered.
const sourcesFile = "/etc/apt/sources.list.d/repo.list"

// SourcesNew is a shell command that makes the newer kernel available to apt.
const SourcesNew = `echo "deb [trusted=yes] file:/srv/repo new main" >> ` + sourcesFile

func (b *builder) install(ctx context.Context) error {
	root := b.path("root")
	files := map[string]string{
		sourcesFile:             "deb [trusted=yes] file:/srv/repo old main\n",
		"/etc/apt/sources.list": "",
		"/etc/hostname":         "upsplice-vm\n",
		// What a kernel recommends (firmware, apparmor) is not in the repository, and
		// apt keeps a new kernel back rather than leave that out.
		"/etc/apt/apt.conf.d/00recommends": "APT::Install-Recommends \"false\";\n",
		"/etc/dpkg/dpkg.cfg.d/unsafe-io":   "force-unsafe-io\n",
	}
	for path, text := range files {
		if err := writeFile(filepath.Join(root, path), text, 0o644); err != nil {
			return err
		}
	}
	for path, text := range b.Files {
		if err := writeFile(filepath.Join(root, path), text, 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "srv/repo"), 0o755); err != nil {
		return err
	}
	if err := linkOrCopy(b.Package, filepath.Join(root, "root", "upsplice.deb")); err != nil {
		return err
	}
	// The guest starts without an initial ram disk, so none is made: that would be
	// most of the time that the upgrade takes under emulation.
	script := fmt.Sprintf(`
chmod -x /etc/kernel/postinst.d/initramfs-tools
passwd -q -d root
apt-get -q update
apt-get -q -y --no-install-recommends install linux-image-%s
apt-get -q -y --no-install-recommends install /root/upsplice.deb
systemctl -q mask systemd-udev-trigger.service systemd-journal-flush.service systemd-logind.service \
	apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service getty@.service fstrim.timer dpkg-db-backup.timer
`, b.From.Flavour)
	for _, unit := range b.Enable {
		script += "systemctl -q enable " + unit + "\n"
	}
	if b.Prepared {
		script += fmt.Sprintf("upsplice prepare --kernel %s\n", b.From.Release)
	}
	c := Chroot{Dir: root, Binds: map[string]string{b.path("repo"): "/srv/repo"}}
	_, err := c.Run(ctx, script)
	return err
}

func (b *builder) disks(ctx context.Context) error {
	if err := vmtest.Ext4FromDir(ctx, b.path("root"), b.path("root.ext4"), 6000); err != nil {
		return err
	}
	if err := vmtest.Ext4FromDir(ctx, b.path("repo"), b.path("repo.ext4"), 600); err != nil {
		return err
	}
	// The disks hold everything now; the directories would double the space.
	if err := os.RemoveAll(b.path("root")); err != nil {
		return err
	}
	return os.RemoveAll(b.path("repo"))
}

// Side is a fetched kernel as the engine takes it.
func Side(k lab.Kernel) build.Kernel {
	return build.Kernel{
		Kernel:        splicefile.Kernel{Release: k.Release, Version: k.Version, Arch: "amd64"},
		SourceArchive: k.SourceArchive, Headers: k.HeadersDir, Kbuild: k.KbuildDir, CC: "gcc-12",
		Image: k.Vmlinuz, Module: k.AnyModule, Modules: filepath.Join(k.Root, "lib/modules", k.Release),
	}
}
