// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// maxConsole bounds what a guest that prints for ever can make us keep.
const maxConsole = 32 << 20

// recorder keeps the console and passes it on.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
	to  io.Writer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if room := maxConsole - r.buf.Len(); room > 0 {
		r.buf.Write(p[:min(len(p), room)])
	}
	if r.to != nil {
		// A terminal that has gone away is no reason to stop the guest.
		r.to.Write(p)
	}
	return len(p), nil
}

// String returns the console with Unix line ends.
func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.ReplaceAll(r.buf.String(), "\r", "")
}

var exitLine = regexp.MustCompile(`(?m)^vmtest: exit (\d+)$`)

// exitMark finds the last line that the init script of a test prints.
func exitMark(console string) (exited bool, code int) {
	all := exitLine.FindAllStringSubmatch(console, -1)
	if len(all) == 0 {
		return false, 0
	}
	code, err := strconv.Atoi(all[len(all)-1][1])
	return err == nil, code
}

// troubleLine matches the first lines of the reports that the kernel writes when
// something is wrong inside of it, as printed with the time since boot and, where
// configured, the task. A WARNING that follows a subsystem's name is not one: at
// boot, that is how the kernel speaks about weak processors.
var troubleLine = regexp.MustCompile(`(?m)^\[ *\d+\.\d+\](?:\[[^\]]*\])? (?:WARNING: |.*?\b(?:` +
	`BUG: |kernel BUG at|Oops:|Call Trace:|general protection fault|` +
	`Kernel panic|ftrace bug|ftrace failed to modify)).*$`)

// Trouble returns the lines of a console or kernel log, each with its time in front,
// that say that something is wrong inside of the kernel.
func Trouble(console string) []string { return trouble(console) }

func trouble(console string) []string {
	lines := troubleLine.FindAllString(console, -1)
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return lines
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
