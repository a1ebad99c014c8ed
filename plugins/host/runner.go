// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-plugin/runner"
)

// maxLog limits what a backend may log, in bytes; the rest is read and dropped, so
// that it neither fills a journal nor blocks.
const maxLog = 1 << 20

// process runs a backend in a process group of its own, as another user where
// asked, and without the host's environment and standard input.
type process struct {
	cmd    *exec.Cmd
	dir    string // of its socket
	stdout io.ReadCloser
	stderr *logPipe

	mu    sync.Mutex
	state string // how it ended, "" while it runs
}

var _ runner.Runner = (*process)(nil)

// newProcess takes from spec, which go-plugin made, only the environment.
func newProcess(path string, opt Options, spec *exec.Cmd, dir string) (*process, error) {
	cmd := exec.Command(path)
	cmd.Dir = "/"
	cmd.Env = append(environment(opt, dir), spec.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid: true,
		// A host that is killed leaves no backend behind.
		Pdeathsig: syscall.SIGKILL,
	}
	if c := opt.Credential; c != nil {
		// Supplementary groups are dropped: Groups is empty.
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID}
		if err := os.Chown(dir, int(c.UID), int(c.GID)); err != nil {
			return nil, fmt.Errorf("starting backend: %w", err)
		}
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting backend: %w", err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("starting backend: %w", err)
	}
	return &process{cmd: cmd, dir: dir, stdout: stdout, stderr: &logPipe{ReadCloser: stderr}}, nil
}

// proxies are the variables that say how to reach the network. apt and most
// other programs know them in these forms.
var proxies = []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}

func environment(opt Options, dir string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"HOME=" + opt.Home,
		"TMPDIR=" + dir,
	}
	for _, name := range proxies {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return append(env, opt.Env...)
}

func (p *process) Start(context.Context) error {
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting backend: %w", err)
	}
	return nil
}

func (p *process) Wait(context.Context) error {
	err := p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = p.cmd.ProcessState.String()
	return err
}

// Kill ends the whole group, what the backend started included.
func (p *process) Kill(context.Context) error {
	if p.cmd.Process == nil {
		return nil
	}
	err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending backend: %w", err)
	}
	return nil
}

// ended says how the process ended and its last words, "" while it runs.
func (p *process) ended() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == "" {
		return ""
	}
	if last := p.stderr.last(); last != "" {
		return p.state + ": " + last
	}
	return p.state
}

func (p *process) Stdout() io.ReadCloser { return p.stdout }
func (p *process) Stderr() io.ReadCloser { return p.stderr }
func (p *process) Name() string          { return p.cmd.Path }

func (p *process) ID() string {
	if p.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

func (p *process) Diagnose(context.Context) string { return p.stderr.last() }

// PluginToHost refuses every address but a socket in the directory that was made
// for it: the host may be root, and must not be led to another service's socket.
func (p *process) PluginToHost(network, addr string) (string, string, error) {
	if network != "unix" || filepath.Dir(filepath.Clean(addr)) != p.dir {
		return "", "", fmt.Errorf("starting backend: it listens at %s %s, not in %s", network, cleanText(addr, maxName), p.dir)
	}
	fi, err := os.Lstat(addr)
	if err != nil {
		return "", "", fmt.Errorf("starting backend: %w", err)
	}
	if fi.Mode().Type() != os.ModeSocket {
		return "", "", fmt.Errorf("starting backend: %s is no socket", addr)
	}
	return network, addr, nil
}

func (p *process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

// logPipe passes on the first maxLog bytes and remembers the last line.
type logPipe struct {
	io.ReadCloser
	n int

	mu   sync.Mutex
	tail []byte
}

// maxTail is how much of the end of the log is kept, in bytes.
const maxTail = 4096

func (l *logPipe) Read(p []byte) (int, error) {
	for {
		n, err := l.ReadCloser.Read(p)
		l.keep(p[:n])
		if l.n < maxLog || err != nil {
			l.n += n
			return n, err
		}
	}
}

func (l *logPipe) keep(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail = append(l.tail, p...)
	if len(l.tail) > maxTail {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-maxTail:]...)
	}
}

func (l *logPipe) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(string(l.tail))
	// The first line of a panic says what it was, what follows is the stack.
	if i := strings.LastIndex(text, "panic: "); i >= 0 {
		line, _, _ := strings.Cut(text[i:], "\n")
		return cleanText(line, maxName)
	}
	return cleanText(text[strings.LastIndexByte(text, '\n')+1:], maxName)
}
