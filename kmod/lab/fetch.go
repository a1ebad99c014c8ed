// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Fetch downloads the parts of k into Dir, unpacks them and fills in the paths.
// What is there already is used; several processes may call it at once. No parts
// means all of them.
func Fetch(ctx context.Context, k *Kernel, parts ...Part) error {
	if len(parts) == 0 {
		parts = []Part{Image, Headers, Source}
	}
	dir := Dir()
	unlock, err := lockDir(ctx, "lock")
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(filepath.Join(dir, "debs"), 0o755); err != nil {
		return fmt.Errorf("making the lab directory: %w", err)
	}
	for _, p := range parts {
		switch p {
		case Image:
			err = fetchImage(ctx, dir, k)
		case Headers:
			err = fetchHeaders(ctx, dir, k)
		case Source:
			err = fetchSource(ctx, dir, k)
		default:
			err = fmt.Errorf("unknown part %q", p)
		}
		if err != nil {
			return fmt.Errorf("fetching the %s of %s: %w", p, k.Release, err)
		}
	}
	return nil
}

func rootDir(dir string, k *Kernel) string {
	return filepath.Join(dir, "root-"+k.Release+"_"+k.Version)
}

func fetchImage(ctx context.Context, dir string, k *Kernel) (err error) {
	if k.ImageDeb, err = download(ctx, dir, k.pkg.image); err != nil {
		return err
	}
	k.Root = rootDir(dir, k)
	if err := unpack(ctx, k.Root, Image, k.ImageDeb); err != nil {
		return err
	}
	k.Vmlinuz = filepath.Join(k.Root, "boot", "vmlinuz-"+k.Release)
	if _, err := os.Stat(k.Vmlinuz); err != nil {
		return err
	}
	k.AnyModule, err = anyModule(ctx, filepath.Join(k.Root, "lib", "modules", k.Release), filepath.Join(k.Root, "uncompressed"))
	return err
}

func fetchHeaders(ctx context.Context, dir string, k *Kernel) (err error) {
	if !k.HasHeaders {
		return &ArchiveError{What: k.pkg.headers.String(), Err: errors.New("the archive has no headers for this kernel")}
	}
	for _, d := range []struct {
		deb *string
		pkg pkgVersion
	}{{&k.HeadersDeb, k.pkg.headers}, {&k.CommonDeb, k.pkg.common}, {&k.KbuildDeb, k.pkg.kbuild}} {
		if *d.deb, err = download(ctx, dir, d.pkg); err != nil {
			return err
		}
	}
	k.Root = rootDir(dir, k)
	if err := unpack(ctx, k.Root, Headers, k.HeadersDeb, k.CommonDeb, k.KbuildDeb); err != nil {
		return err
	}
	k.HeadersDir = filepath.Join(k.Root, "usr/src", k.pkg.headers.name)
	k.CommonDir = filepath.Join(k.Root, "usr/src", k.pkg.common.name)
	k.KbuildDir = filepath.Join(k.Root, "usr/lib", k.pkg.kbuild.name)
	for _, d := range []string{k.HeadersDir, k.CommonDir, k.KbuildDir} {
		if _, err := os.Stat(d); err != nil {
			return err
		}
	}
	return nil
}

func fetchSource(ctx context.Context, dir string, k *Kernel) (err error) {
	if !k.HasSource {
		return &ArchiveError{What: k.pkg.source.String(), Err: errors.New("the archive has no source for this kernel")}
	}
	if k.SourceDeb, err = download(ctx, dir, k.pkg.source); err != nil {
		return err
	}
	out := filepath.Join(dir, "source", k.pkg.source.name+"_"+k.Version+".tar.xz")
	if _, err := os.Stat(out); errors.Is(err, fs.ErrNotExist) {
		if err := extractSource(ctx, k.SourceDeb, out); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	k.SourceArchive = out
	return nil
}

// download returns the path of the .deb, getting it from the archive if it is not
// there yet. Package lists older than the mirror name files that are gone: they
// are renewed once.
func download(ctx context.Context, dir string, p pkgVersion) (string, error) {
	debs := filepath.Join(dir, "debs")
	find := func(in string) string {
		// apt-get download writes a colon of an epoch as %3a.
		found, _ := filepath.Glob(filepath.Join(in, p.name+"_"+strings.ReplaceAll(p.version, ":", "%3a")+"_*.deb"))
		if len(found) == 0 {
			return ""
		}
		return found[0]
	}
	if deb := find(debs); deb != "" {
		return deb, nil
	}
	tmp, err := os.MkdirTemp(dir, "download-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	get := func() error {
		_, err := output(ctx, tmp, "apt-get", "-q", "download", p.String())
		return err
	}
	if err := get(); err != nil {
		if update(ctx) != nil {
			return "", fmt.Errorf("downloading %s: %w", p, err)
		}
		if err := get(); err != nil {
			return "", fmt.Errorf("downloading %s: %w", p, err)
		}
	}
	deb := find(tmp)
	if deb == "" {
		return "", fmt.Errorf("downloading %s: apt-get left no file", p)
	}
	final := filepath.Join(debs, filepath.Base(deb))
	return final, os.Rename(deb, final)
}

// unpack adds the contents of debs to root. A stamp says that a part is complete,
// so that an unpacking that was interrupted is done again.
func unpack(ctx context.Context, root string, part Part, debs ...string) error {
	stamp := filepath.Join(root, ".complete-"+string(part))
	if _, err := os.Stat(stamp); err == nil {
		return nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := output(ctx, "", "dpkg-deb", "-x", deb, root); err != nil {
			// A file that was cut off would fail for ever if it stayed.
			return fmt.Errorf("unpacking %s: %w", deb, errors.Join(err, os.Remove(deb)))
		}
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// extractSource takes the one source archive out of a linux-source package.
func extractSource(ctx context.Context, deb, out string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends dpkg-deb when the member has been read
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Wait()
	tr := tar.NewReader(pipe)
	for {
		h, err := tr.Next()
		if err != nil {
			return fmt.Errorf("looking for the source archive in %s: %w", deb, err)
		}
		if m, _ := path.Match("usr/src/linux-source-*.tar.xz", path.Clean(h.Name)); m {
			return writeAtomic(out, tr)
		}
	}
}

func writeAtomic(name string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".part-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := io.Copy(f, r); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// anyModule returns a module below dir. Where all are compressed it unpacks the
// first into the directory out.
func anyModule(ctx context.Context, dir, out string) (string, error) {
	var plain, packed string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() && strings.HasSuffix(p, ".ko") {
			plain = p
			return filepath.SkipAll
		}
		if d.Type().IsRegular() && strings.HasSuffix(p, ".ko.xz") && packed == "" {
			packed = p
		}
		return nil
	})
	switch {
	case err != nil || plain != "":
		return plain, err
	case packed == "":
		return "", fmt.Errorf("no module below %s", dir)
	}
	module := filepath.Join(out, strings.TrimSuffix(filepath.Base(packed), ".xz"))
	if _, err := os.Stat(module); err == nil {
		return module, nil
	}
	data, err := output(ctx, "", "xz", "-dc", "--", packed)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", err
	}
	return module, writeAtomic(module, bytes.NewReader(data))
}

// lockDir takes a lock in Dir, which keeps test processes from doing the same
// work there at once.
func lockDir(ctx context.Context, name string) (unlock func(), err error) {
	if err := os.MkdirAll(Dir(), 0o755); err != nil {
		return nil, fmt.Errorf("making the lab directory: %w", err)
	}
	return lock(ctx, filepath.Join(Dir(), name))
}

func lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the lab directory: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for another process that holds %s: %w", name, context.Cause(ctx))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
