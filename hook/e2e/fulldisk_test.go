// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/upsplice/upsplice/hook/rig"
	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/build"
)

// TestFullDisk builds on a disk that is full at different stages, and goes on
// when there is room again.
func TestFullDisk(t *testing.T) {
	from, to := lab.NeedPair(t)
	dir := t.TempDir()
	mount := func(mib int64, option string) {
		t.Helper()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("%ssize=%dm", option, mib), "full", dir).CombinedOutput(); err != nil {
			t.Fatalf("mounting a small disk: %v: %s", err, out)
		}
	}
	used := func() int64 {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Blocks-st.Bfree) * st.Bsize >> 20
	}
	full := func(stage string, err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want a full disk, and which", stage, err)
		}
	}
	ctx := context.Background()
	mount(64, "")
	t.Cleanup(func() { _ = exec.Command("umount", dir).Run() })
	full("unpacking", build.Prepare(ctx, rig.Side(from), dir, nil))

	mount(4096, "remount,")
	if err := build.Prepare(ctx, rig.Side(from), dir, nil); err != nil {
		t.Fatal(err)
	}
	req := build.Request{From: rig.Side(from), To: rig.Side(to), Cache: dir}
	mount(used()+1, "remount,")
	res, err := build.Run(ctx, req)
	if err == nil {
		t.Fatalf("a build fits into 1 MiB: %+v", res)
	}
	full("building", err)

	mount(4096, "remount,")
	if res, err := build.Run(ctx, req); err != nil || res.File == nil {
		t.Errorf("with room again: %+v, %v", res, err)
	}
}
