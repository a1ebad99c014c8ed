// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"
)

var (
	kvmOnce   sync.Once
	kvmResult bool
)

// kvmWorks reports whether a guest really reaches user space with KVM. That
// /dev/kvm opens says little: where virtualisation is nested badly, guests hang
// in early boot. The answer holds for this process.
func kvmWorks(ctx context.Context, kernel string) bool {
	kvmOnce.Do(func() { kvmResult = trialBoot(ctx, kernel) })
	return kvmResult
}

func trialBoot(ctx context.Context, kernel string) bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	dir, err := os.MkdirTemp("", "vmtest-kvm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	root, image := filepath.Join(dir, "root"), filepath.Join(dir, "image")
	if Minimal(root, nil, "true") != nil || Ext4FromDir(ctx, root, image, 0) != nil {
		return false
	}
	m := Machine{Kernel: kernel, Disks: []Disk{{Path: image, Unsafe: true}}, Timeout: 8 * time.Second}
	r, err := m.run(ctx, "kvm", nil)
	return err == nil && r.Err() == nil
}
