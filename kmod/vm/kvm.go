// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

var (
	kvmOnce   sync.Once
	kvmResult bool
)

// Accelerator is "kvm" if a guest really reaches user space with it, else "tcg".
// That /dev/kvm opens says little: where virtualisation is nested badly, guests
// hang in early boot. The answer holds for this process.
func Accelerator(ctx context.Context, kernel string) string {
	kvmOnce.Do(func() { kvmResult = trialBoot(ctx, kernel) })
	if kvmResult {
		return "kvm"
	}
	return "tcg"
}

// trialExit is what the init of the trial ends with, which the kernel repeats in
// its panic.
const trialExit = 42

func trialBoot(ctx context.Context, kernel string) bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return reachesUserSpace(ctx, kernel, "kvm", 8*time.Second)
}

func reachesUserSpace(ctx context.Context, kernel, accel string, limit time.Duration) bool {
	dir, err := os.MkdirTemp("", "upsplice-trial-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "initrd")
	w, err := os.Create(image)
	if err != nil {
		return false
	}
	defer w.Close()
	if Initramfs(w, []File{{Name: "init", Mode: 0o755, Data: exitProgram(trialExit)}}) != nil {
		return false
	}
	r, err := Machine{Kernel: kernel, Initrd: image, Append: "rdinit=/init", Timeout: limit}.run(ctx, accel, nil)
	return err == nil && strings.Contains(r.Console, "exitcode=0x00002a00")
}

// exitProgram is the smallest program that exits with code: an ELF file of x86-64
// with one segment.
func exitProgram(code byte) []byte {
	const base, size = 0x400000, 64 + 56
	text := []byte{
		0xbf, code, 0, 0, 0, // mov $code, %edi
		0xb8, 60, 0, 0, 0, // mov $SYS_exit, %eax
		0x0f, 0x05, // syscall
	}
	le := binary.LittleEndian
	out := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	out = le.AppendUint16(out, 2)         // executable
	out = le.AppendUint16(out, 62)        // x86-64
	out = le.AppendUint32(out, 1)         // version
	out = le.AppendUint64(out, base+size) // entry
	out = le.AppendUint64(out, 64)        // program headers
	out = le.AppendUint64(out, 0)         // section headers
	out = le.AppendUint32(out, 0)         // flags
	for _, n := range []uint16{64, 56, 1, 64, 0, 0} {
		out = le.AppendUint16(out, n)
	}
	out = le.AppendUint32(out, 1) // load
	out = le.AppendUint32(out, 5) // read, execute
	for _, n := range []uint64{0, base, base, uint64(size + len(text)), uint64(size + len(text)), 0x1000} {
		out = le.AppendUint64(out, n)
	}
	return append(out, text...)
}
