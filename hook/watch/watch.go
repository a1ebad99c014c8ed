// SPDX-License-Identifier: Apache-2.0

// Package watch notices kernels that land on the disk, whoever puts them there.
package watch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options of Watch. The zero value is for the running machine.
type Options struct {
	// BootDir holds vmlinuz-RELEASE; "" means /boot.
	BootDir string
	// ModulesDir holds a directory for each release; a kernel is complete only
	// with it. "" means /lib/modules, "-" that there are no modules to wait for.
	ModulesDir string
	// Settle is how long an image must stay as it is to be complete; 0 means 5 s,
	// which is longer than dpkg and rpm take between writing and renaming it.
	Settle time.Duration
	// Poll is how often to look without a notification, for the events that are
	// lost and for directories that come later; 0 means a minute.
	Poll time.Duration
	// Log takes what is not fatal; nil means nothing.
	Log *slog.Logger
}

// Watch calls fn with the release of each kernel whose image appears in BootDir
// or is replaced there, once, when it is complete. That includes the release
// that runs: a distribution may ship new code under an old name. Images that are
// there at the beginning are not reported. It returns when ctx is done, with its
// cause; fn runs on the goroutine of Watch.
func Watch(ctx context.Context, opt Options, fn func(release string)) error {
	return newWatcher(opt, fn).run(ctx)
}

// image is what tells one content of an image from another without reading it.
type image struct {
	inode uint64
	size  int64
	mtime time.Time
}

type pending struct {
	image image
	since time.Time // unchanged since
}

type watcher struct {
	opt     Options
	fn      func(string)
	known   map[string]image   // reported, or there from the beginning
	pending map[string]pending // seen, not settled
}

func newWatcher(opt Options, fn func(string)) *watcher {
	if opt.BootDir == "" {
		opt.BootDir = "/boot"
	}
	switch opt.ModulesDir {
	case "":
		opt.ModulesDir = "/lib/modules"
	case "-":
		opt.ModulesDir = ""
	}
	if opt.Settle == 0 {
		opt.Settle = 5 * time.Second
	}
	if opt.Poll == 0 {
		opt.Poll = time.Minute
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &watcher{opt: opt, fn: fn, pending: map[string]pending{}}
}

func (w *watcher) run(ctx context.Context) error {
	// Before the watch is set up, so that what lands in between is new.
	w.known = w.scan()
	notify := newNotifier(w.opt)
	defer notify.close()
	notify.add()

	poll := time.NewTicker(w.opt.Poll)
	defer poll.Stop()
	// Fires when the image that changed last may have settled.
	settle := time.NewTimer(w.opt.Settle)
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case ev := <-notify.events():
			if !w.relevant(ev) {
				continue
			}
		case err := <-notify.errors():
			// An overflow loses events, and looking finds what they were about.
			if err != nil {
				w.opt.Log.LogAttrs(ctx, slog.LevelWarn, "watch notification failed", slog.Any("error", err))
			}
		case <-poll.C:
			notify.add()
		case <-settle.C:
		}
		if w.look(time.Now()) {
			settle.Reset(w.opt.Settle)
		}
	}
}

// look compares what is there with what was, reports the images that have
// settled, and tells whether any has not.
func (w *watcher) look(now time.Time) (unsettled bool) {
	found := w.scan()
	for release := range w.pending {
		if _, ok := found[release]; !ok {
			delete(w.pending, release)
		}
	}
	for release := range w.known {
		// A kernel that is removed and installed again is a new one. An empty
		// scan more likely is a /boot that is not mounted just now.
		if _, ok := found[release]; !ok && len(found) > 0 {
			delete(w.known, release)
		}
	}
	releases := make([]string, 0, len(found))
	for release := range found {
		releases = append(releases, release)
	}
	slices.Sort(releases)
	for _, release := range releases {
		img := found[release]
		if w.known[release] == img {
			delete(w.pending, release)
			continue
		}
		p, ok := w.pending[release]
		if !ok || p.image != img {
			w.pending[release] = pending{image: img, since: now}
			unsettled = true
			continue
		}
		if now.Sub(p.since) < w.opt.Settle {
			unsettled = true
			continue
		}
		if !w.complete(release) {
			// The directory that is missing sends an event when it comes.
			continue
		}
		delete(w.pending, release)
		w.known[release] = img
		w.fn(release)
	}
	return unsettled
}

// A release begins with two numbers. That leaves out rescue images, whose name
// has a machine id.
var releaseForm = regexp.MustCompile(`^[0-9]+\.[0-9]+[A-Za-z0-9._+~-]*$`)

// What dpkg, editors and people append to a file that is not a kernel's own.
var notKernels = []string{".dpkg-new", ".dpkg-tmp", ".dpkg-old", ".dpkg-dist", ".old", ".bak", ".tmp", "~"}

const imagePrefix = "vmlinuz-"

// scan returns the images in BootDir by release.
func (w *watcher) scan() map[string]image {
	found := map[string]image{}
	entries, err := os.ReadDir(w.opt.BootDir)
	if err != nil {
		// The directory may come (back) later; the notifier reports its absence.
		return found
	}
	for _, e := range entries {
		release, ok := strings.CutPrefix(e.Name(), imagePrefix)
		if !ok || !releaseForm.MatchString(release) ||
			slices.ContainsFunc(notKernels, func(s string) bool { return strings.HasSuffix(release, s) }) {
			continue
		}
		st, err := os.Stat(filepath.Join(w.opt.BootDir, e.Name()))
		if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
			continue
		}
		img := image{size: st.Size(), mtime: st.ModTime()}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			img.inode = sys.Ino
		}
		found[release] = img
	}
	return found
}

// complete tells whether the modules of release are there too.
func (w *watcher) complete(release string) bool {
	if w.opt.ModulesDir == "" {
		return true
	}
	st, err := os.Stat(filepath.Join(w.opt.ModulesDir, release))
	return err == nil && st.IsDir()
}

// relevant leaves out the many writes of an initrd beside the images.
func (w *watcher) relevant(ev fsnotify.Event) bool {
	name := filepath.Clean(ev.Name)
	return strings.HasPrefix(filepath.Base(name), imagePrefix) ||
		name == filepath.Clean(w.opt.BootDir) ||
		name == filepath.Clean(w.opt.ModulesDir) ||
		filepath.Dir(name) == filepath.Clean(w.opt.ModulesDir)
}
