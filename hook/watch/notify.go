// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"log/slog"

	"github.com/fsnotify/fsnotify"
)

// notifier is an fsnotify watcher that can be missing: where the limit on
// inotify instances or watches is reached, looking from time to time remains.
type notifier struct {
	opt  Options
	dirs []string
	w    *fsnotify.Watcher
	warn map[string]bool // said once
}

func newNotifier(opt Options) *notifier {
	n := &notifier{opt: opt, dirs: []string{opt.BootDir}, warn: map[string]bool{}}
	if opt.ModulesDir != "" {
		n.dirs = append(n.dirs, opt.ModulesDir)
	}
	n.renew()
	return n
}

// renew starts again with a new watcher.
func (n *notifier) renew() {
	n.close()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		n.say("watch notifications unavailable", "", err)
		n.w = nil
		return
	}
	n.w = w
}

// add watches the directories that exist. Adding one again is free, and needed:
// the kernel watches an inode, and a directory that was replaced is another.
func (n *notifier) add() {
	if n.w == nil {
		n.renew()
	}
	if n.w == nil {
		return
	}
	for _, d := range n.dirs {
		if err := n.w.Add(d); err != nil {
			n.say("watch directory unavailable", d, err)
		} else {
			delete(n.warn, d)
		}
	}
}

func (n *notifier) say(msg, dir string, err error) {
	if n.warn[dir] {
		return
	}
	n.warn[dir] = true
	n.opt.Log.Warn(msg, slog.String("directory", dir), slog.Any("error", err))
}

// events and errors never deliver anything without a watcher.
func (n *notifier) events() <-chan fsnotify.Event {
	if n.w == nil {
		return nil
	}
	return n.w.Events
}

func (n *notifier) errors() <-chan error {
	if n.w == nil {
		return nil
	}
	return n.w.Errors
}

func (n *notifier) close() {
	if n.w != nil {
		_ = n.w.Close()
	}
}
