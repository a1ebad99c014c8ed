// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/vm"
	"github.com/upsplice/upsplice/kmod/vmtest"
	"github.com/upsplice/upsplice/splice/splicefile"
)

// Trial is a splice to be tried in a booted machine.
type Trial struct {
	Change Change
	Name   string // of the trial; a change has one with and one without custom code
	File   *splicefile.File
}

// Try boots the kernel and tries the splices one after the other, each from
// loading to undoing, twice. After one that went wrong another machine goes on with
// the rest. program is this one, linked statically; it calls Guest there.
func Try(ctx context.Context, k lab.Kernel, program string, trials []Trial, done func(Outcome)) error {
	for len(trials) > 0 {
		n, err := tryOnce(ctx, k, program, trials, done)
		if err != nil {
			return err
		}
		trials = trials[n:]
	}
	return nil
}

// tryOnce returns how many of the trials have an outcome now.
func tryOnce(ctx context.Context, k lab.Kernel, program string, trials []Trial, done func(Outcome)) (n int, err error) {
	dir, err := os.MkdirTemp("/var/tmp", "upsplice-corpus-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	root, disk := filepath.Join(dir, "root"), filepath.Join(dir, "disk")
	if err := guestTree(ctx, k, program, root, trials); err != nil {
		return 0, err
	}
	if err := vmtest.Ext4FromDir(ctx, root, disk, 0); err != nil {
		return 0, err
	}
	report := filepath.Join(dir, "report")
	m := vm.Machine{
		Kernel: k.Vmlinuz, CPUs: 2, MemoryMB: 2048, Timeout: 3*time.Minute + time.Duration(len(trials))*time.Minute,
		Disks: []vm.Disk{{Path: disk, Unsafe: true}},
		Extra: []string{"-chardev", "file,id=report,path=" + report, "-serial", "chardev:report"},
	}
	if m.Initrd, err = initrd(k, dir); err != nil {
		return 0, err
	}
	res, runErr := m.Run(ctx, nil)
	text, err := os.ReadFile(report)
	if err != nil {
		return 0, fmt.Errorf("trying splices: the guest reported nothing: %w; its console ends with:\n%s", runErr, lastLines(res.Console))
	}
	var running string
	s := bufio.NewScanner(bytes.NewReader(text))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var o Outcome
		if json.Unmarshal(s.Bytes(), &o) != nil {
			continue // torn by the end of the machine
		}
		if running = o.Name; !o.Started {
			running = ""
			done(o)
			n++
		}
	}
	if running != "" {
		o := Outcome{Name: running, Step: "survive", Error: "the machine did not survive it: " + strings.Join(res.Trouble, "; ") + " " + lastLines(res.Console)}
		done(o)
		n++
	}
	if n == 0 {
		return 0, fmt.Errorf("trying splices: the guest tried none (%v); its console ends with:\n%s", runErr, lastLines(res.Console))
	}
	return n, nil
}

func lastLines(console string) string {
	lines := strings.Split(strings.TrimSpace(console), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// guestTree makes the root file system: busybox, all modules of the kernel, the
// splices and what their exercises need.
func guestTree(ctx context.Context, k lab.Kernel, program, root string, trials []Trial) error {
	sh, poke, err := GuestFiles()
	if err != nil {
		return err
	}
	script := "cat /proc/sys/kernel/osrelease\n" + guestDir + "/program guest\n"
	if err := vmtest.Minimal(root, map[string]string{guestDir + "/program": program}, script); err != nil {
		return err
	}
	put := func(name string, data []byte, mode fs.FileMode) error {
		return os.WriteFile(filepath.Join(root, guestDir, name), data, mode)
	}
	if err := put("guest.sh", sh, 0o644); err != nil {
		return err
	}
	if err := put("poke.c", poke, 0o644); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "gcc-12", "-static", "-O1", "-o", filepath.Join(root, "bin/poke"), filepath.Join(root, guestDir, "poke.c")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compiling poke: %w: %s", err, out)
	}
	var plan []trial
	for i, t := range trials {
		var b bytes.Buffer
		if err := splicefile.Write(&b, t.File); err != nil {
			return err
		}
		p := trial{Name: t.Name, Splice: fmt.Sprintf("%d.splice", i), Function: t.Change.Function, Exercise: t.Change.Exercise}
		for _, target := range t.File.Manifest.Targets {
			if target.Name != "vmlinux" {
				p.Targets = append(p.Targets, target.Name)
			}
		}
		if err := put(p.Splice, b.Bytes(), 0o644); err != nil {
			return err
		}
		plan = append(plan, p)
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	if err := put("plan", text, 0o644); err != nil {
		return err
	}
	return modules(ctx, k, root)
}

// modules copies the kernel's modules, unpacked, and lists what needs what.
func modules(ctx context.Context, k lab.Kernel, root string) error {
	from := filepath.Join(k.Root, "lib/modules", k.Release)
	to := filepath.Join(root, "lib/modules", k.Release)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copying modules: %w: %s", err, out)
	}
	if err := unpackModules(ctx, to); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "depmod", "-b", root, k.Release).CombinedOutput(); err != nil {
		return fmt.Errorf("running depmod: %w: %s", err, out)
	}
	return nil
}

func unpackModules(ctx context.Context, dir string) error {
	var packed []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".ko.xz") {
			packed = append(packed, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(packed, 500) {
		if out, err := exec.CommandContext(ctx, "xz", append([]string{"-d", "-T0", "--"}, some...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("unpacking modules: %w: %s", err, out)
		}
	}
	return nil
}

// initScript of the first root file system, for kernels whose drivers of the disk
// and its file system are modules.
const initScript = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for m in $(/bin/busybox cat /order); do /bin/busybox insmod /$m; done
/bin/busybox mkdir /new
until [ -b /dev/nvme0n1 ]; do /bin/busybox usleep 100000; done
/bin/busybox mount -t ext4 /dev/nvme0n1 /new && exec /bin/busybox switch_root /new /sbin/init
`

// initrd returns the path of the first root file system, "" if the kernel has
// everything built in.
func initrd(k lab.Kernel, dir string) (string, error) {
	if k.Flavour == lab.Cloud {
		return "", nil
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return "", err
	}
	files := []vm.File{
		{Name: "init", Mode: 0o755, Data: []byte(initScript)}, {Name: "bin/busybox", Mode: 0o755, Data: busybox},
		{Name: "dev/none", Mode: 0o644},
	}
	list, err := os.ReadFile(filepath.Join(dir, "root/lib/modules", k.Release, "modules.dep"))
	if err != nil {
		return "", err
	}
	var order []string
	// ext4 asks for its checksums by name, which modules.dep does not have.
	for _, wanted := range []string{"crc32c_generic", "nvme", "ext4"} {
		for line := range strings.Lines(string(list)) {
			name, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
			if !ok || strings.TrimSuffix(filepath.Base(name), ".ko") != wanted {
				continue
			}
			all := strings.Fields(needs)
			slices.Reverse(all) // modules.dep names what is needed last first
			for _, path := range append(all, name) {
				if base := filepath.Base(path); !slices.Contains(order, base) {
					data, err := os.ReadFile(filepath.Join(dir, "root/lib/modules", k.Release, path))
					if err != nil {
						return "", err
					}
					order = append(order, base)
					files = append(files, vm.File{Name: base, Mode: 0o644, Data: data})
				}
			}
		}
	}
	files = append(files, vm.File{Name: "order", Mode: 0o644, Data: []byte(strings.Join(order, "\n") + "\n")})
	name := filepath.Join(dir, "initrd")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return name, vm.Initramfs(f, files)
}
