// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/upsplice/upsplice/hook/live"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// scratch is where the guest's files are exercised: an ext4 file system, or memory.
const scratch = "/scratch"

// guest is the rehearsal as the machine in QEMU sees it.
type guest struct {
	plan   plan
	splice *splicefile.File
	kernel *live.Kernel
	report io.Writer
	log    *os.File // /dev/kmsg
	loaded []string // target modules and what they need, in the order of loading
	final  final
}

// Guest is the init of the guest: it does what the plan says, reports, and switches
// the machine off. It returns only if it is not init of a rehearsal.
func Guest(ctx context.Context) error {
	if _, err := os.Stat("/" + guestPlan); os.Getpid() != 1 || err != nil {
		return errors.New("rehearsing: this command is the init of a machine that upsplice rehearse starts")
	}
	g := &guest{}
	if err := g.begin(); err != nil {
		fmt.Println("upsplice rehearsal:", err)
		g.step("start", func() (string, error) { return "", err })
	} else {
		g.rehearse(ctx)
	}
	g.send(event{Final: &g.final})
	unix.Sync()
	// The report goes through a serial line, which takes its time: that of many
	// rounds is longer than the buffer of the line (tcdrain(3)).
	if f, ok := g.report.(*os.File); ok {
		unix.IoctlSetInt(int(f.Fd()), unix.TCSBRK, 1)
	}
	time.Sleep(500 * time.Millisecond)
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// begin makes a system of what the kernel leaves its init.
func (g *guest) begin() error {
	for _, m := range []struct{ fstype, dir string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"securityfs", "/sys/kernel/security"},
		{"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"debugfs", "/sys/kernel/debug"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil && m.fstype != "debugfs" {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	report, err := os.OpenFile(guestReport, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	g.report = report
	if g.log, err = os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return err
	}
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	text, err := os.ReadFile("/" + guestPlan)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &g.plan); err != nil {
		return fmt.Errorf("reading the plan: %w", err)
	}
	f, err := os.Open("/" + guestSplice)
	if err != nil {
		return err
	}
	defer f.Close()
	if g.splice, err = splicefile.Read(f); err != nil {
		return err
	}
	g.kernel = live.Host(g.plan.Deadline)
	g.final.Kernel = g.kernel.Release()
	return upLoopback()
}

func (g *guest) send(e event) {
	if g.report == nil {
		return
	}
	if b, err := json.Marshal(e); err == nil {
		fmt.Fprintf(g.report, "%s\n", b)
	}
}

// step does one thing, reports it, and says whether it went well.
func (g *guest) step(name string, do func() (detail string, err error)) bool {
	start := time.Now()
	detail, err := do()
	s := Step{Name: name, OK: err == nil, Detail: detail, Seconds: time.Since(start).Seconds()}
	var out *outputError
	if errors.As(err, &out) {
		s.Output = out.lines
	}
	if err != nil {
		s.Detail = err.Error()
	}
	g.send(event{Step: &s})
	return s.OK
}

func plain(f func() error) func() (string, error) {
	return func() (string, error) { return "", f() }
}

// rehearse goes through the whole of it and stops at the first thing that goes
// wrong; the kernel log is looked at in any case.
func (g *guest) rehearse(ctx context.Context) {
	if !g.step("start", g.prepare) {
		return
	}
	Messages(g.log) // what the boot said is not the splice's doing
	ok := g.walk(ctx)
	logOK := g.step("kernel log", func() (string, error) {
		// What the kernel has still to say comes from work that is under way.
		time.Sleep(time.Second)
		g.final.Log = append(g.final.Log, Trouble(Messages(g.log))...)
		if n := len(g.final.Log); n > 0 {
			return "", fmt.Errorf("%d messages mean trouble, the first: %s", n, g.final.Log[0])
		}
		return "no message that means trouble", nil
	})
	g.final.OK = ok && logOK
}

func (g *guest) walk(ctx context.Context) bool {
	apply := plain(func() error { return g.kernel.Apply(ctx, g.splice, nil) })
	undo := plain(func() error { return g.kernel.Undo(ctx, g.splice, nil) })
	exercise := func() (string, error) { return exercise(ctx, scratch) }
	steps := []struct {
		name string
		do   func() (string, error)
		skip bool
	}{
		{"load modules", g.loadTargets, len(g.plan.Targets) == 0},
		{"check", plain(g.check), false},
		{"apply", apply, false},
		{"verify", plain(g.isLive), false},
		{"exercise", exercise, false},
		{"run the script", plain(func() error { return runScript(ctx) }), !g.plan.Exec},
		{"undo", undo, false},
		{"verify that it is gone", plain(g.isGone), false},
		{"exercise the old code", exercise, false},
		{"unload modules", g.unloadTargets, len(g.plan.Targets) == 0},
		{"apply again", apply, false},
		{"load modules with the splice live", g.loadTargets, len(g.plan.Targets) == 0},
		{"verify again", plain(g.isLive), false},
		{"exercise again", exercise, false},
		{"undo again", undo, false},
		{"verify again that it is gone", plain(g.isGone), false},
		{"rounds", func() (string, error) { return g.rounds(ctx) }, g.plan.Rounds == 0},
	}
	for _, s := range steps {
		if !s.skip && !g.step(s.name, s.do) {
			return false
		}
	}
	return true
}

func (g *guest) prepare() (string, error) {
	for _, name := range g.plan.Base {
		if err := loadModule(name); err != nil {
			return "", err
		}
	}
	if err := g.mount(); err != nil {
		return "", err
	}
	where := "memory"
	if g.plan.Disk {
		where = "ext4"
	}
	return fmt.Sprintf("%s, files on %s", g.final.Kernel, where), nil
}

func (g *guest) mount() error {
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		return err
	}
	if !g.plan.Disk {
		return unix.Mount("tmpfs", scratch, "tmpfs", 0, "size=128m")
	}
	const disk = "/dev/nvme0n1"
	for range 100 {
		if _, err := os.Stat(disk); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := unix.Mount(disk, scratch, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", disk, err)
	}
	return nil
}

func (g *guest) check() error {
	if err := g.kernel.Ready(); err != nil {
		return err
	}
	return g.kernel.Check(g.splice)
}

func (g *guest) isLive() error {
	on, err := g.kernel.IsLive(g.splice)
	if err == nil && !on {
		err = errors.New("the kernel does not have it in force")
	}
	return err
}

func (g *guest) isGone() error {
	all, err := g.kernel.Patches.List()
	if err == nil && len(all) > 0 {
		err = fmt.Errorf("the kernel still has the livepatch %s", all[0].Name)
	}
	if err != nil {
		return err
	}
	for _, m := range g.splice.Manifest.Modules {
		if _, err := os.Stat("/sys/module/" + m.Name); err == nil && !m.Pinned {
			return fmt.Errorf("the module %s is still loaded", m.Name)
		}
	}
	return nil
}

func loadModule(name string) error {
	data, err := os.ReadFile("/" + guestModules + "/" + name)
	if err != nil {
		return err
	}
	if err := unix.InitModule(data, ""); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("loading the module %s: %w", name, err)
	}
	return nil
}

// loadTargets loads the modules that the splice is for. One that wants a device that
// is not there is no fault; it is named.
func (g *guest) loadTargets() (string, error) {
	var done, not []string
	for _, order := range g.plan.Targets {
		target := order[len(order)-1]
		for _, name := range order {
			err := loadModule(name)
			switch {
			case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO):
				not = append(not, name)
			case err != nil:
				return "", err
			default:
				g.loaded = append(g.loaded, name)
			}
		}
		if _, err := os.Stat("/sys/module/" + target); err == nil {
			done = append(done, target)
		}
	}
	detail := strings.Join(done, ", ")
	if len(not) > 0 {
		detail += "; no device for " + strings.Join(not, ", ")
	}
	return strings.TrimPrefix(detail, "; "), nil
}

// unloadTargets unloads what can be unloaded: others use some, and some never go.
func (g *guest) unloadTargets() (string, error) {
	var gone []string
	for i := len(g.loaded) - 1; i >= 0; i-- {
		if unix.DeleteModule(g.loaded[i], unix.O_NONBLOCK) == nil {
			gone = append(gone, g.loaded[i])
		}
	}
	g.loaded = nil
	return strings.Join(gone, ", "), nil
}

// outputError keeps what a script printed.
type outputError struct {
	err   error
	lines []string
}

func (e *outputError) Error() string { return e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

var installBusybox = sync.OnceValue(func() error {
	const busybox = "/bin/busybox"
	if _, err := os.Stat(busybox); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return exec.Command(busybox, "--install", "-s", "/bin").Run()
})

func runScript(ctx context.Context) error {
	if err := installBusybox(); err != nil {
		return fmt.Errorf("installing the shell: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/"+guestExec)
	cmd.Dir = scratch
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
		return &outputError{fmt.Errorf("the script ended with %w", err), lines[max(0, len(lines)-20):]}
	}
	return nil
}

// Messages returns the messages of the kernel log since the last call. kmsg is
// /dev/kmsg, opened not to block.
func Messages(kmsg *os.File) []string {
	var all []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(int(kmsg.Fd()), buf)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // some were overwritten before they were read
		case err != nil || n <= 0:
			return all
		}
		if m, ok := parseRecord(string(buf[:n])); ok {
			all = append(all, m)
		}
	}
}
