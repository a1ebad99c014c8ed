// SPDX-License-Identifier: Apache-2.0

// Package vm boots a shipped kernel in QEMU: for rehearsals, for tests and for the
// demonstration. Cloud kernels need no initrd for this: ext4, NVMe and the serial
// console are built in, virtio is not. Initramfs makes one for those that do.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Disk becomes an NVMe drive: the first one is /dev/nvme0n1, the second /dev/nvme1n1.
type Disk struct {
	Path     string
	Format   string // "raw" if empty
	Serial   string // "disk0", "disk1" … if empty
	Snapshot bool   // throw away what the guest writes
	Unsafe   bool   // ignore the guest's flushes: much faster, and the guest is thrown away anyway
}

// tcgCPU is the processor that QEMU emulates. Without the fast string moves the
// kernel and the C library copy in words, which under emulation is three times as
// fast as byte by byte.
const tcgCPU = "max,-erms,-fsrm"

// tcgThreads is how QEMU emulates several processors. Before 8.1 one thread each let a
// processor translate code while another one wrote it, and then run the breakpoint
// that a kernel puts there for a moment when it changes its own text: a kernel that
// switches trace points on and off dies with "Oops: int3" within a minute. QEMU
// mended it with "accel/tcg: Always lock pages before translation"; see
// "qemu-x86_64 booting with 8.0.0 stil see int3" on the kernel's list, July 2023.
var tcgThreads = sync.OnceValue(func() string {
	out, _ := exec.Command(qemu, "--version").Output()
	return threadsOf(string(out))
})

func threadsOf(version string) string {
	var major, minor int
	_, rest, _ := strings.Cut(version, " version ")
	if _, err := fmt.Sscanf(rest, "%d.%d", &major, &minor); err != nil || major < 8 || major == 8 && minor < 1 {
		return "single"
	}
	return "multi"
}

// Machine is a virtual machine. The zero values of the optional fields are sensible.
type Machine struct {
	Kernel   string        // path of a vmlinuz
	Firmware []string      // UEFI instead of a BIOS: read-only code and a private copy of its variables
	Initrd   string        // optional
	Append   string        // added to the kernel command line
	CPUs     int           // 1 if 0
	CPU      string        // QEMU's CPU model; "host" with KVM, "max" without (see tcgCPU), if empty
	MemoryMB int           // 512 if 0
	Disks    []Disk        // the first one is the root file system
	Extra    []string      // further arguments of QEMU, e.g. for a network
	Timeout  time.Duration // 5 minutes if 0
}

// Result is what happened in the machine.
type Result struct {
	Console  string        // everything on the serial console
	Exited   bool          // the guest printed its exit mark, "vmtest: exit CODE"
	ExitCode int           // of the script, if Exited
	Trouble  []string      // WARNING, BUG, Oops, Call Trace and the like on the console
	Duration time.Duration // from the start of QEMU to its end
}

// Err says what was not right: no exit mark, an exit code, or a line of trouble.
func (r Result) Err() error {
	switch {
	case len(r.Trouble) > 0:
		return fmt.Errorf("the kernel complained: %s", strings.Join(r.Trouble, "; "))
	case !r.Exited:
		return fmt.Errorf("the guest stopped before the end of its script; the console ends with:\n%s", tail(r.Console, 15))
	case r.ExitCode != 0:
		return fmt.Errorf("the script in the guest exited with %d; the console ends with:\n%s", r.ExitCode, tail(r.Console, 15))
	}
	return nil
}

// MissingToolError names a program that is not installed, and its package.
type MissingToolError struct{ Tool, Package string }

func (e *MissingToolError) Error() string {
	return fmt.Sprintf("running %s: not installed (apt-get install %s)", e.Tool, e.Package)
}

// TimeoutError: the machine had to be stopped.
type TimeoutError struct {
	After   time.Duration
	Console string
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the machine did not end within %v; the console ends with:\n%s", e.After, tail(e.Console, 15))
}

const qemu = "qemu-system-x86_64"

// Run boots the machine and waits until it is switched off or panics. The console
// is copied to console as it comes, which may be nil. A *TimeoutError comes with
// the result so far.
func (m Machine) Run(ctx context.Context, console io.Writer) (Result, error) {
	if err := Need(qemu, "qemu-system-x86"); err != nil {
		return Result{}, err
	}
	return m.run(ctx, Accelerator(ctx, m.Kernel), console)
}

func (m Machine) run(ctx context.Context, accel string, console io.Writer) (Result, error) {
	if m.Timeout == 0 {
		m.Timeout = 5 * time.Minute
	}
	if console == nil {
		console = io.Discard
	}
	rec := &recorder{to: console}
	var stderr recorder
	limited, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()

	cmd := exec.CommandContext(limited, qemu, m.args(accel)...)
	cmd.Stdout, cmd.Stderr = rec, &stderr
	cmd.WaitDelay = 5 * time.Second
	// QEMU must not go on when a test is killed. The signal comes when the starting
	// thread ends, so that thread has to live as long as QEMU.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	err := cmd.Run()

	r := Result{Console: rec.String(), Duration: time.Since(start)}
	r.Exited, r.ExitCode = exitMark(r.Console)
	r.Trouble = trouble(r.Console)
	switch {
	case ctx.Err() != nil:
		return r, fmt.Errorf("running %s: %w", qemu, context.Cause(ctx))
	case limited.Err() != nil && !r.Exited:
		return r, &TimeoutError{After: m.Timeout, Console: r.Console}
	case limited.Err() != nil:
		// The script is through; only the power-off hung.
		return r, nil
	case err != nil:
		return r, fmt.Errorf("running %s: %w: %s", qemu, err, strings.TrimSpace(tail(stderr.String(), 3)))
	}
	return r, nil
}

func (m Machine) args(accel string) []string {
	var a []string
	add := func(s ...string) { a = append(a, s...) }
	cpu := "host"
	if accel == "tcg" {
		accel, cpu = "tcg,thread="+tcgThreads(), tcgCPU
	}
	if m.CPU != "" {
		cpu = m.CPU
	}
	add("-accel", accel, "-cpu", cpu, "-smp", strconv.Itoa(max(m.CPUs, 1)))
	memory := m.MemoryMB
	if memory == 0 {
		memory = 512
	}
	add("-m", strconv.Itoa(memory))
	add("-nodefaults", "-display", "none", "-no-reboot")
	add("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	for i, f := range m.Firmware {
		drive := "if=pflash,unit=" + strconv.Itoa(i) + ",format=raw,file=" + strings.ReplaceAll(f, ",", ",,")
		if i == 0 {
			drive += ",readonly=on"
		}
		add("-drive", drive)
	}
	add("-kernel", m.Kernel)
	if m.Initrd != "" {
		add("-initrd", m.Initrd)
	}
	// panic=-1 with -no-reboot turns a panic into the end of QEMU. Level 5 shows
	// warnings on the console, which trouble looks for.
	line := []string{"console=ttyS0", "panic=-1", "loglevel=5"}
	if len(m.Disks) > 0 {
		line = append(line, "root=/dev/nvme0n1", "rootwait", "rootfstype=ext4", "rw")
	}
	if m.Append != "" {
		line = append(line, m.Append)
	}
	add("-append", strings.Join(line, " "))
	for i, d := range m.Disks {
		id := "disk" + strconv.Itoa(i)
		format, serial := d.Format, d.Serial
		if format == "" {
			format = "raw"
		}
		if serial == "" {
			serial = id
		}
		// A comma in a path is doubled in QEMU's option syntax.
		drive := "if=none,id=" + id + ",format=" + format + ",file=" + strings.ReplaceAll(d.Path, ",", ",,")
		if d.Snapshot {
			drive += ",snapshot=on"
		}
		if d.Unsafe {
			drive += ",cache=unsafe"
		}
		add("-drive", drive, "-device", "nvme,drive="+id+",serial="+serial)
	}
	return slices.Concat(a, m.Extra)
}

// Need returns a *MissingToolError if tool is not installed.
func Need(tool, pkg string) error {
	if _, err := exec.LookPath(tool); errors.Is(err, exec.ErrNotFound) {
		return &MissingToolError{Tool: tool, Package: pkg}
	} else if err != nil {
		return fmt.Errorf("looking for %s: %w", tool, err)
	}
	return nil
}
