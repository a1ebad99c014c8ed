// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/upsplice/upsplice/kmod/lab"
)

// fakeKernel plays the kernel's part in a directory: it moves the tasks of a
// transition one by one, as far as they are not stuck.
type fakeKernel struct {
	t    *testing.T
	root string
	sys  *System

	mu       sync.Mutex
	stuck    [2]bool // all tasks but the first do not go to the old (0) or the new code (1)
	busy     bool    // the kernel does not finish, though all tasks have switched
	inUse    int     // how often delete_module says that the module is in use
	loadErr  error
	loads    []string
	unloaded []string
	patches  map[string]*fakePatch
}

type fakePatch struct {
	target bool
	at     map[int]bool // task to whether it runs the new code
	done   bool
}

var tasks = []int{1, 42, 4711}

func newFake(t *testing.T) *fakeKernel {
	k := &fakeKernel{t: t, root: t.TempDir(), patches: map[string]*fakePatch{}}
	k.sys = &System{Root: k.root, Load: k.load, Unload: k.unload}
	for _, d := range []string{"sys/kernel/livepatch", "proc"} {
		if err := os.MkdirAll(filepath.Join(k.root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k.write("proc/modules", "ext4 987136 1 - Live 0xffffffffc0000000\n")
	for _, n := range tasks {
		dir := fmt.Sprintf("proc/%d/task/%d/", n, n)
		k.write(dir+"patch_state", "-1\n")
		k.write(dir+"comm", fmt.Sprintf("task%d\n", n))
		flags := 0x400040
		if n == 4711 {
			flags = pfKthread | 0x8040
		}
		k.write(dir+"stat", fmt.Sprintf("%d (task) %d) S 1 1 1 0 -1 %d 0 0\n", n, n, flags))
		k.write(dir+"stack", fmt.Sprintf("[<0>] busy_%d+0x1/0x2\n[<0>] main+0x5/0x9\n", n))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				k.step()
			}
		}
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
	return k
}

// write replaces a file at once, as the kernel's files are never half written.
func (k *fakeKernel) write(name, text string) {
	path := filepath.Join(k.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Error(err)
	}
	if err := os.WriteFile(path+"~", []byte(text), 0o644); err != nil {
		k.t.Error(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		k.t.Error(err)
	}
}

func (k *fakeKernel) load(module []byte, params string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loads = append(k.loads, string(module))
	if k.loadErr != nil {
		return k.loadErr
	}
	k.enable(string(module))
	return nil
}

// enable makes the livepatch called name appear, in transition.
func (k *fakeKernel) enable(name string) {
	p := &fakePatch{target: true, at: map[int]bool{}}
	for _, n := range tasks {
		p.at[n] = false
		k.write(fmt.Sprintf("proc/%d/task/%d/patch_state", n, n), "0\n")
	}
	k.patches[name] = p
	text, _ := os.ReadFile(filepath.Join(k.root, "proc/modules"))
	k.write("proc/modules", string(text)+name+" 16384 1 - Live 0xffffffffc0000000 (OEK)\n")
	dir := filepath.Join(k.root, "sys/kernel/livepatch/."+name)
	rel := "sys/kernel/livepatch/." + name + "/"
	k.write(rel+"enabled", "1\n")
	k.write(rel+"transition", "1\n")
	k.write(rel+"vmlinux/patched", "1\n")
	k.write(rel+"vmlinux/f,1/x", "")
	k.write(rel+"vmlinux/g,2/x", "")
	k.write(rel+"other/patched", "0\n")
	k.write(rel+"other/h,1/x", "")
	if err := os.Rename(dir, filepath.Join(k.root, "sys/kernel/livepatch", name)); err != nil {
		k.t.Error(err)
	}
}

func (k *fakeKernel) step() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, p := range k.patches {
		dir := "sys/kernel/livepatch/" + name
		b, err := os.ReadFile(filepath.Join(k.root, dir, "enabled"))
		if err != nil {
			continue
		}
		if on := b[0] == '1'; on != p.target {
			p.target, p.done = on, false
			k.write(dir+"/transition", "1\n")
		}
		if p.done {
			continue
		}
		moved := false
		i := 0
		if p.target {
			i = 1
		}
		left := 0
		for _, n := range tasks {
			state := fmt.Sprintf("proc/%d/task/%d/patch_state", n, n)
			switch {
			case p.at[n] == p.target:
			case moved, k.stuck[i] && n != 1:
				left++
				k.write(state, map[bool]string{true: "1\n", false: "0\n"}[p.at[n]])
				continue
			default:
				p.at[n], moved = p.target, true
			}
			k.write(state, map[bool]string{true: "1\n", false: "0\n"}[p.target])
		}
		if left > 0 {
			continue
		}
		if k.busy {
			continue
		}
		p.done = true
		for _, n := range tasks {
			k.write(fmt.Sprintf("proc/%d/task/%d/patch_state", n, n), "-1\n")
		}
		k.write(dir+"/transition", "0\n")
		if !p.target {
			delete(k.patches, name)
			if err := os.RemoveAll(filepath.Join(k.root, dir)); err != nil {
				k.t.Error(err)
			}
		}
	}
}

func (k *fakeKernel) unload(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inUse > 0 {
		k.inUse--
		return syscall.EAGAIN
	}
	if k.patches[name] != nil {
		return syscall.EAGAIN
	}
	text, _ := os.ReadFile(filepath.Join(k.root, "proc/modules"))
	lines := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(l string) bool { return strings.HasPrefix(l, name+" ") })
	k.write("proc/modules", strings.Join(lines, ""))
	k.unloaded = append(k.unloaded, name)
	return nil
}

const long = time.Minute

func TestApplyAndUndo(t *testing.T) {
	k := newFake(t)
	var left []int
	if err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), long, func(n int) { left = append(left, n) }); err != nil {
		t.Fatal(err)
	}
	if len(left) == 0 || slices.Max(left) > 3 || !slices.IsSortedFunc(left, func(a, b int) int { return b - a }) {
		t.Errorf("progress %v", left)
	}
	got, err := k.sys.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []State{{Name: "upsplice_a", Enabled: true, Functions: 2}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("List (-want +got):\n%s", d)
	}
	// Again, as after a kill: nothing is loaded twice.
	if err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), long, nil); err != nil || len(k.loads) != 1 {
		t.Errorf("second Apply: %v, loads %v", err, k.loads)
	}
	k.mu.Lock()
	k.inUse = 2
	k.mu.Unlock()
	if err := k.sys.Undo(t.Context(), "upsplice_a", long, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := k.sys.List(); err != nil || len(got) != 0 {
		t.Errorf("after Undo: %v, %v", got, err)
	}
	if d := cmp.Diff([]string{"upsplice_a"}, k.unloaded); d != "" {
		t.Error(d)
	}
	if err := k.sys.Undo(t.Context(), "upsplice_a", long, nil); err != nil {
		t.Errorf("Undo of what is not there: %v", err)
	}
}

func TestStallReverses(t *testing.T) {
	k := newFake(t)
	k.stuck[1] = true
	err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), 100*time.Millisecond, nil)
	var stalled *StalledError
	if !errors.As(err, &stalled) {
		t.Fatalf("error = %v", err)
	}
	want := &StalledError{Patch: "upsplice_a", After: 100 * time.Millisecond, Reversed: true, Blockers: []Blocker{
		{PID: 42, Comm: "task42", Stack: []string{"busy_42+0x1/0x2", "main+0x5/0x9"}},
		{PID: 4711, Comm: "task4711", Kernel: true, Stack: []string{"busy_4711+0x1/0x2", "main+0x5/0x9"}},
	}}
	if d := cmp.Diff(want, stalled); d != "" {
		t.Errorf("error (-want +got):\n%s", d)
	}
	const text = "waiting for livepatch upsplice_a: the transition did not finish within 100ms; held up by task42 (42) in busy_42+0x1/0x2, kernel thread task4711 (4711) in busy_4711+0x1/0x2; it was reversed"
	if err.Error() != text {
		t.Errorf("text = %q", err)
	}
	if all, err := k.sys.List(); err != nil || len(all) != 0 || len(k.unloaded) != 1 {
		t.Errorf("left: %v, %v, unloaded %v", all, err, k.unloaded)
	}
}

// TestStalledReversal: a task that has switched does not come back either.
func TestStalledReversal(t *testing.T) {
	k := newFake(t)
	k.sys.settle = 50 * time.Millisecond
	k.stuck = [2]bool{true, true}
	k.mu.Lock()
	k.enable("upsplice_a")
	k.patches["upsplice_a"].at[42] = true
	k.mu.Unlock()
	err := k.sys.Apply(t.Context(), "upsplice_a", nil, 50*time.Millisecond, nil)
	var stalled *StalledError
	if !errors.As(err, &stalled) || stalled.Reversed || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error = %v", err)
	}
	if len(k.unloaded) != 0 {
		t.Error("a module in transition was unloaded")
	}
}

func TestUndoStallEnablesAgain(t *testing.T) {
	k := newFake(t)
	if err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), long, nil); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	k.stuck[0] = true
	k.mu.Unlock()
	err := k.sys.Undo(t.Context(), "upsplice_a", 100*time.Millisecond, nil)
	var stalled *StalledError
	if !errors.As(err, &stalled) || !stalled.Reversed || len(stalled.Blockers) != 2 {
		t.Fatalf("error = %v", err)
	}
	all, err := k.sys.List()
	if err != nil || len(all) != 1 || !all[0].Enabled || all[0].Transition || len(k.unloaded) != 0 {
		t.Errorf("state %+v, %v, unloaded %v", all, err, k.unloaded)
	}
}

// When all tasks have switched there is nothing to reverse: the kernel finishes, which
// takes long for a large livepatch.
func TestFinishesLate(t *testing.T) {
	k := newFake(t)
	const deadline = 2 * time.Second
	late := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.busy = true
		time.AfterFunc(deadline+deadline/4, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.busy = false
		})
	}
	late()
	if err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), deadline, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := k.sys.List(); err != nil || len(got) != 1 || !got[0].Enabled || got[0].Transition {
		t.Errorf("after Apply: %v, %v", got, err)
	}
	late()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := k.sys.Undo(ctx, "upsplice_a", deadline, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := k.sys.List(); err != nil || len(got) != 0 {
		t.Errorf("after Undo: %v, %v", got, err)
	}
}

func TestNeverFinishes(t *testing.T) {
	k := newFake(t)
	k.busy, k.sys.last = true, 50*time.Millisecond
	err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), 2*time.Second, nil)
	var stalled *StalledError
	if !errors.As(err, &stalled) || stalled.Reversed || !errors.Is(err, errUnfinished) {
		t.Errorf("error = %v", err)
	}
}

func TestCancelReverses(t *testing.T) {
	k := newFake(t)
	k.stuck[1] = true
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := k.sys.Apply(ctx, "upsplice_a", []byte("upsplice_a"), long, nil)
	var stalled *StalledError
	if !errors.As(err, &stalled) || !stalled.Reversed || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error = %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for errno, want := range map[error]Reason{
		syscall.EBUSY: Busy, syscall.EPERM: Forbidden, syscall.EKEYREJECTED: Signature, syscall.ENOKEY: Signature,
		syscall.ENOEXEC: WrongKernel, syscall.EINVAL: Rejected, syscall.ENOENT: WrongKernel, syscall.EEXIST: Busy,
	} {
		k := newFake(t)
		k.loadErr = errno
		err := k.sys.Apply(t.Context(), "upsplice_a", nil, long, nil)
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Reason != want || refused.Remedy == "" || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	k := newFake(t)
	k.loadErr = syscall.ENOMEM
	var refused *RefusedError
	if err := k.sys.Apply(t.Context(), "upsplice_a", nil, long, nil); !errors.Is(err, syscall.ENOMEM) || errors.As(err, &refused) {
		t.Errorf("error = %v", err)
	}
	os.RemoveAll(filepath.Join(k.root, "sys/kernel/livepatch"))
	for _, err := range []error{k.sys.Apply(t.Context(), "upsplice_a", nil, long, nil), second(k.sys.List())} {
		if !errors.As(err, &refused) || refused.Reason != Unsupported {
			t.Errorf("without livepatch: %v", err)
		}
	}
	for _, name := range []string{"", "..", "a/b", "a-b", "a\n"} {
		if err := k.sys.Apply(t.Context(), name, nil, long, nil); err == nil || !strings.Contains(err.Error(), "not the name") {
			t.Errorf("Apply(%q): %v", name, err)
		}
		if err := k.sys.Undo(t.Context(), name, long, nil); err == nil || !strings.Contains(err.Error(), "not the name") {
			t.Errorf("Undo(%q): %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestLeftover: a module whose livepatch is disabled goes before it is loaded anew.
func TestLeftover(t *testing.T) {
	k := newFake(t)
	k.write("proc/modules", "upsplice_a 16384 0 - Live 0x0\n")
	if err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), long, nil); err != nil {
		t.Fatal(err)
	}
	if len(k.unloaded) != 1 || len(k.loads) != 1 {
		t.Errorf("unloaded %v, loads %v", k.unloaded, k.loads)
	}
}

func TestReap(t *testing.T) {
	k := newFake(t)
	k.mu.Lock()
	k.enable("upsplice_new")
	k.mu.Unlock()
	text, _ := os.ReadFile(filepath.Join(k.root, "proc/modules"))
	k.write("proc/modules", string(text)+"upsplice_old 16384 0 - Live 0x0\nupsplice_stays 16384 0 [permanent], Live 0x0\nupsplice_half 16384 1 - Loading 0x0\nother 1 0 - Live 0x0\n")
	if err := k.sys.Reap(""); err == nil {
		t.Error("an empty prefix was accepted")
	}
	k.sys.settle = 50 * time.Millisecond
	k.mu.Lock()
	k.inUse = 1000
	k.mu.Unlock()
	if err := k.sys.Reap("upsplice_"); err != nil || len(k.unloaded) != 0 {
		t.Errorf("in use: %v, unloaded %v", err, k.unloaded)
	}
	k.mu.Lock()
	k.inUse = 2 // the kernel lets go of it a moment later
	k.mu.Unlock()
	if err := k.sys.Reap("upsplice_"); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{"upsplice_old"}, k.unloaded); d != "" {
		t.Errorf("unloaded (-want +got):\n%s", d)
	}
}

// TestProd: only the threads of user space that sleep are prodded, and only when
// the kernel had time to switch them by itself.
func TestProd(t *testing.T) {
	k := newFake(t)
	k.stuck[1] = true
	k.sys.prod = 50 * time.Millisecond
	var prodded []int
	k.sys.Prod = func(threads []int) {
		prodded = append(prodded, threads...)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.stuck[1] = false
	}
	if err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), long, nil); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{42}, prodded); d != "" {
		t.Errorf("prodded (-want +got):\n%s", d)
	}
}

func TestBlockersOf(t *testing.T) {
	k := newFake(t)
	k.mu.Lock()
	k.stuck[1] = true
	k.enable("upsplice_a")
	k.mu.Unlock()
	for {
		all, err := k.sys.Blockers("upsplice_a")
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 2 && all[0].PID == 42 && all[1].Kernel {
			break
		}
	}
	if all, err := k.sys.Blockers("upsplice_b"); err != nil || len(all) != 0 {
		t.Errorf("of one that is not there: %v, %v", all, err)
	}
}

// TestApplyAfterUndoWasCutShort: what is on its way out is undone, then loaded anew.
func TestApplyAfterUndoWasCutShort(t *testing.T) {
	k := newFake(t)
	k.mu.Lock()
	k.enable("upsplice_a")
	k.write("sys/kernel/livepatch/upsplice_a/enabled", "0\n")
	k.mu.Unlock()
	if err := k.sys.Apply(t.Context(), "upsplice_a", []byte("upsplice_a"), long, nil); err != nil {
		t.Fatal(err)
	}
	if len(k.unloaded) != 1 || len(k.loads) != 1 {
		t.Errorf("unloaded %v, loads %v", k.unloaded, k.loads)
	}
}

// TestUndoStates: undo from what a replacement, a kill or another program left.
func TestUndoStates(t *testing.T) {
	for name, c := range map[string]struct {
		modules  string
		enable   string
		enabled  string // written after enable, if not empty
		unloaded []string
	}{
		"never loaded":                     {},
		"replaced, or disabled by others":  {modules: "upsplice_a 1 0 - Live 0x0\n", unloaded: []string{"upsplice_a"}},
		"permanent":                        {modules: "upsplice_a 1 0 [permanent], Live 0x0\n"},
		"in transition to the new code":    {enable: "upsplice_a", unloaded: []string{"upsplice_a"}},
		"in transition to the old code":    {enable: "upsplice_a", enabled: "0\n", unloaded: []string{"upsplice_a"}},
		"a copy is enabled, the first not": {modules: "upsplice_a 1 0 [permanent], Live 0x0\n", enable: "upsplice_a_r2", unloaded: []string{"upsplice_a_r2"}},
		"somebody else's only":             {modules: "upsplice_ab 1 0 - Live 0x0\nupsplice_a_rx 1 0 - Live 0x0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newFake(t)
			k.mu.Lock()
			k.write("proc/modules", c.modules)
			if c.enable != "" {
				k.enable(c.enable)
			}
			if c.enabled != "" {
				k.write("sys/kernel/livepatch/"+c.enable+"/enabled", c.enabled)
			}
			k.mu.Unlock()
			if err := k.sys.Undo(t.Context(), "upsplice_a", long, nil); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.unloaded, k.unloaded); d != "" {
				t.Errorf("unloaded (-want +got):\n%s", d)
			}
			if all, err := k.sys.List(); err != nil || len(all) != 0 {
				t.Errorf("left: %v, %v", all, err)
			}
		})
	}
}

func TestBase(t *testing.T) {
	for in, want := range map[string]string{
		"upsplice_1": "upsplice_1", "upsplice_1_r2": "upsplice_1", "upsplice_1_r99": "upsplice_1", "upsplice_1_r1": "upsplice_1_r1",
		"upsplice_1_r02": "upsplice_1_r02", "upsplice_1_r100": "upsplice_1_r100", "_r2": "_r2", "": "",
	} {
		if got := Base(in); got != want {
			t.Errorf("Base(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestRename uses a module that a distribution ships.
func TestRename(t *testing.T) {
	path := lab.NeedNewest(t, lab.Image).AnyModule
	name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rename(old, name, name+"_r2")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(old, long) || len(old) != len(long) {
		t.Error("nothing was changed, or the size was")
	}
	back, err := rename(long, name+"_r2", name)
	if err != nil || !bytes.Equal(old, back) {
		t.Errorf("renaming back: %v", err)
	}
	for _, c := range []struct {
		module   []byte
		from, to string
	}{{old, "not_this", "x"}, {old, name, strings.Repeat("x", nameSize)}, {old[:100], name, "x"}, {nil, name, "x"}} {
		if _, err := rename(c.module, c.from, c.to); err == nil {
			t.Errorf("renaming %d bytes from %q to %q was done", len(c.module), c.from, c.to)
		}
	}
}

func FuzzRename(f *testing.F) {
	f.Add([]byte("\x7fELF"), "a")
	f.Fuzz(func(t *testing.T, module []byte, from string) {
		if out, err := rename(module, from, "other"); err == nil && len(out) != len(module) {
			t.Error("the size was changed")
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add("1 (systemd) S 0 1 1 0 -1 4194560 1 2 3\n")
	f.Add("2 (a) b) I 0 0 0 0 -1 2129984\n")
	f.Fuzz(func(t *testing.T, in string) {
		if got, ok := parseStat(in); !ok && (got.kernel || got.sleeping) {
			t.Errorf("%q gave %+v and not ok", in, got)
		}
	})
}

func FuzzParseModules(f *testing.F) {
	f.Add("ext4 987136 1 - Live 0xffffffffc0000000\nupsplice_a 16384 0 - Loading 0x0 (OEK)\n")
	f.Add("a b c d\n")
	f.Fuzz(func(t *testing.T, in string) {
		mods, err := parseModules(strings.NewReader(in))
		if err != nil {
			return
		}
		for _, m := range mods {
			if m.name == "" || m.state == "" {
				t.Errorf("%q gave %+v", in, m)
			}
		}
	})
}
