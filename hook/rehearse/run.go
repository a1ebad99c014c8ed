// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"bufio"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/upsplice/upsplice/kmod/vm"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// plan is what the guest is told.
type plan struct {
	Base     []string      `json:"base"`    // modules to load first, files in /modules
	Targets  [][]string    `json:"targets"` // for each target module: its own dependencies, then itself
	Rounds   int           `json:"rounds"`
	Exec     bool          `json:"exec"`
	Disk     bool          `json:"disk"` // there is an ext4 file system
	Deadline time.Duration `json:"deadline"`
}

// event is a line of the guest's report.
type event struct {
	Step  *Step  `json:"step,omitempty"`
	Final *final `json:"final,omitempty"`
}

type final struct {
	Kernel string    `json:"kernel"`
	OK     bool      `json:"ok"`
	Log    []string  `json:"log"`
	Slabs  []Growth  `json:"slabs"`
	Apply  []float64 `json:"apply"` // seconds, of each round
	Undo   []float64 `json:"undo"`
}

// Names in the guest.
const (
	guestPlan    = "plan.json"
	guestSplice  = "the.splice"
	guestExec    = "exec"
	guestModules = "modules"
	guestReport  = "/dev/ttyS1"
	// GuestVerb is the hidden command that calls Guest.
	GuestVerb = "rehearsal"
)

// maxOutput bounds what a guest can make us keep.
const maxOutput = 16 << 20

// Run rehearses. An error means that there was no rehearsal, or none to its end; a
// splice that does harm is a Report that is not OK. A missing QEMU is a
// *vm.MissingToolError, a missing image an *ImageError.
func Run(ctx context.Context, opt Options) (*Report, error) {
	if opt.CPUs == 0 {
		opt.CPUs = 2
	}
	if opt.MemoryMB == 0 {
		opt.MemoryMB = 1024
	}
	if opt.Deadline == 0 {
		opt.Deadline = time.Minute
	}
	if opt.Timeout == 0 {
		opt.Timeout = 10*time.Minute + time.Duration(opt.Rounds)*30*time.Second
	}
	if err := vm.Need("qemu-system-x86_64", "qemu-system-x86"); err != nil {
		return nil, err
	}
	if f, err := os.Open(opt.Image); err != nil {
		return nil, &ImageError{opt.Image, "name the vmlinuz of " + opt.Splice.Manifest.From.Release + " with --image", err}
	} else {
		f.Close()
	}
	dir, err := os.MkdirTemp("", "upsplice-rehearsal-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)

	p := plan{Rounds: opt.Rounds, Exec: opt.Exec != "", Deadline: opt.Deadline}
	m := vm.Machine{
		Kernel: opt.Image, Initrd: filepath.Join(dir, "initrd"), CPUs: opt.CPUs, MemoryMB: opt.MemoryMB, Timeout: opt.Timeout,
		Append: strings.TrimSpace(opt.Append + " rdinit=/init -- " + GuestVerb),
	}
	if disk, err := scratchDisk(ctx, dir); err != nil {
		return nil, err
	} else if disk != "" {
		p.Disk = true
		m.Extra = append(m.Extra, "-drive", "if=none,id=scratch,format=raw,cache=unsafe,file="+disk, "-device", "nvme,drive=scratch,serial=scratch")
	}
	if err := pack(m.Initrd, opt, p); err != nil {
		return nil, fmt.Errorf("packing the rehearsal: %w", err)
	}
	report := filepath.Join(dir, "report")
	m.Extra = append(m.Extra, "-chardev", "file,id=report,path="+report, "-serial", "chardev:report")

	rep := &Report{Splice: opt.Splice.Manifest.ID, Accelerator: vm.Accelerator(ctx, opt.Image)}
	follow := follower{path: report, step: opt.Step, rep: rep}
	start := time.Now()
	stop := follow.start()
	res, err := m.Run(ctx, nil)
	stop()
	rep.Seconds = time.Since(start).Seconds()
	switch {
	case follow.final == nil && err != nil:
		return rep, err
	case follow.final == nil && len(res.Trouble) > 0:
		// It did not survive, which is an answer.
		rep.Log = res.Trouble
		return rep, nil
	case follow.final == nil:
		return rep, fmt.Errorf("rehearsing: the guest ended before its report did; its console ends with:\n%s", lastLines(res.Console, 15))
	}
	end := follow.final
	rep.Kernel, rep.OK, rep.Log, rep.Slabs, rep.Rounds = end.Kernel, end.OK, end.Log, end.Slabs, len(end.Undo)
	rep.Apply, rep.Undo = median(end.Apply), median(end.Undo)
	return rep, nil
}

// scratchDisk makes a small ext4 image, if mke2fs is there: "" if it is not.
func scratchDisk(ctx context.Context, dir string) (string, error) {
	tool := "mke2fs"
	for _, path := range []string{"mke2fs", "/sbin/mke2fs", "/usr/sbin/mke2fs"} {
		if found, err := exec.LookPath(path); err == nil {
			tool = found
			break
		}
	}
	path := filepath.Join(dir, "scratch")
	out, err := exec.CommandContext(ctx, tool, "-q", "-F", "-t", "ext4", path, "128M").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("making a disk for the rehearsal: %s: %w: %s", tool, err, bytes.TrimSpace(out))
	}
	return path, nil
}

// pack writes the guest's initramfs.
func pack(path string, opt Options, p plan) error {
	program, err := os.ReadFile(opt.Program)
	if err != nil {
		return err
	}
	if !Static(program) {
		return fmt.Errorf("%s is not linked statically, and there are no libraries in the guest", opt.Program)
	}
	var splice bytes.Buffer
	if err := splicefile.Write(&splice, opt.Splice); err != nil {
		return err
	}
	files := []vm.File{
		{Name: "init", Mode: 0o755, Data: program},
		{Name: guestSplice, Mode: 0o644, Data: splice.Bytes()},
	}
	if opt.Exec != "" {
		more, err := packExec(opt.Exec)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	var mods moduleSet
	if opt.Modules != "" {
		if mods, err = findModules(opt.Modules); err != nil {
			return err
		}
	}
	// What a disk needs, where it is not built in.
	for _, name := range []string{"nvme", "ext4"} {
		if _, ok := mods.paths[name]; ok && p.Disk {
			order, err := mods.order(name)
			if err != nil {
				return err
			}
			p.Base = append(p.Base, order...)
		}
	}
	for _, t := range opt.Splice.Manifest.Targets {
		if t.Name == "vmlinux" {
			continue
		}
		order, err := mods.order(t.Name)
		if err != nil {
			return err
		}
		p.Targets = append(p.Targets, order)
	}
	for _, name := range mods.used() {
		files = append(files, vm.File{Name: guestModules + "/" + name, Mode: 0o644, Data: mods.data[name]})
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	files = append(files, vm.File{Name: guestPlan, Mode: 0o644, Data: text})
	w, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(vm.Initramfs(w, files), w.Close())
}

// packExec takes a program as it is, and with a script the shell that runs it.
func packExec(path string) ([]vm.File, error) {
	const shell = "/bin/busybox"
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	files := []vm.File{{Name: guestExec, Mode: 0o755, Data: data}}
	if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		if !Static(data) {
			return nil, fmt.Errorf("%s is not linked statically, and there are no libraries in the guest", path)
		}
		return files, nil
	}
	busybox, err := os.ReadFile(shell)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !Static(busybox) {
		return nil, &vm.MissingToolError{Tool: shell, Package: "busybox-static"}
	}
	if err != nil {
		return nil, err
	}
	return append(files, vm.File{Name: "bin/busybox", Mode: 0o755, Data: busybox}), nil
}

// Static tells whether a program, the bytes of its file, runs without a loader: the
// guests have no libraries.
func Static(program []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// follower reads the report while it is being written.
type follower struct {
	path  string
	step  func(Step)
	rep   *Report
	final *final
}

// start returns a function that reads what is left and stops.
func (f *follower) start() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		var off int64
		for last := false; ; {
			off = f.read(off)
			if last {
				return
			}
			select {
			case <-done:
				last = true
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// read takes the whole lines from off on and returns where it got to.
func (f *follower) read(off int64) int64 {
	r, err := os.Open(f.path)
	if err != nil {
		return off
	}
	defer r.Close()
	if _, err := r.Seek(off, io.SeekStart); err != nil || off > maxOutput {
		return off
	}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return off
		}
		off += int64(len(line))
		var e event
		if json.Unmarshal([]byte(strings.TrimSpace(line)), &e) != nil {
			continue
		}
		if e.Step != nil {
			f.rep.Steps = append(f.rep.Steps, *e.Step)
			if f.step != nil {
				f.step(*e.Step)
			}
		}
		if e.Final != nil {
			f.final = e.Final
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
