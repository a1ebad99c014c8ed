// SPDX-License-Identifier: Apache-2.0

package livepatch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func (s *System) sysfs(elem ...string) string {
	return filepath.Join(append([]string{s.Root, "sys/kernel/livepatch"}, elem...)...)
}

func (s *System) list() ([]State, error) {
	entries, err := os.ReadDir(s.sysfs())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &RefusedError{Reason: Unsupported, Remedy: "boot a kernel that is built with CONFIG_LIVEPATCH", Err: err}
	} else if err != nil {
		return nil, fmt.Errorf("listing livepatches: %w", err)
	}
	var all []State
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		st, err := s.state(e.Name())
		if err != nil {
			return nil, err
		}
		if st != nil {
			all = append(all, *st)
		}
	}
	return all, nil
}

// state returns nil for a livepatch that is not there.
func (s *System) state(name string) (*State, error) {
	st := &State{Name: name}
	for file, to := range map[string]*bool{"enabled": &st.Enabled, "transition": &st.Transition} {
		v, err := s.flag(name, file)
		if gone(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the state of livepatch %s: %w", name, err)
		}
		*to = v
	}
	n, err := s.functions(name)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("counting the functions of livepatch %s: %w", name, err)
	}
	st.Functions = n
	return st, nil
}

// gone: a livepatch may go away between two reads, which sysfs says in two ways.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoDevice) }

func (s *System) flag(elem ...string) (bool, error) {
	name := s.sysfs(elem...)
	b, err := os.ReadFile(name)
	if err != nil {
		return false, err
	}
	switch strings.TrimSpace(string(b)) {
	case "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, fmt.Errorf("%s holds %q, and not 0 or 1", name, b)
}

func (s *System) setEnabled(name string, on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	f, err := os.OpenFile(s.sysfs(name, "enabled"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(v)
	return errors.Join(err, f.Close())
}

// functions counts the directories OBJECT/FUNCTION,POSITION of patched objects.
func (s *System) functions(name string) (int, error) {
	objects, err := os.ReadDir(s.sysfs(name))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, o := range objects {
		if !o.IsDir() {
			continue
		}
		// Kernels before 6.1 do not have the file, and count as patched.
		if patched, err := s.flag(name, o.Name(), "patched"); err == nil && !patched {
			continue
		}
		funcs, err := os.ReadDir(s.sysfs(name, o.Name()))
		if err != nil {
			return 0, err
		}
		for _, f := range funcs {
			if f.IsDir() && strings.Contains(f.Name(), ",") {
				n++
			}
		}
	}
	return n, nil
}

// module is a line of /proc/modules.
type module struct {
	name      string
	permanent bool   // it has no exit function, and stays until the next boot
	state     string // "Live", "Loading", "Unloading"
}

func (s *System) modules() ([]module, error) {
	f, err := os.Open(filepath.Join(s.Root, "proc/modules"))
	if err != nil {
		return nil, fmt.Errorf("listing modules: %w", err)
	}
	defer f.Close()
	return parseModules(f)
}

func parseModules(r io.Reader) ([]module, error) {
	var all []module
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		// name size references users state address
		w := strings.Fields(sc.Text())
		if len(w) < 5 {
			return nil, fmt.Errorf("reading /proc/modules: the line %q has an unknown form", sc.Text())
		}
		// print_unload_info of kernel/module/procfs.c
		permanent := slices.Contains(strings.Split(w[3], ","), "[permanent]")
		all = append(all, module{name: w[0], permanent: permanent, state: w[4]})
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reading /proc/modules: %w", err)
	}
	return all, nil
}

// loaded returns the module if it is in the kernel, in whatever state.
func (s *System) loaded(name string) (*module, error) {
	mods, err := s.modules()
	if err != nil {
		return nil, err
	}
	for _, m := range mods {
		if m.name == name {
			return &m, nil
		}
	}
	return nil, nil
}

func (s *System) reap(prefix string) error {
	if prefix == "" {
		return errors.New("reaping modules: no prefix, so it would be everybody's")
	}
	mods, err := s.modules()
	if err != nil {
		return err
	}
	// One patience for all: they are let go by the same work item.
	ctx, cancel := context.WithTimeout(context.Background(), min(reapPatience, s.settling()))
	defer cancel()
	var errs []error
	for _, m := range mods {
		if !strings.HasPrefix(m.name, prefix) || m.state != "Live" || m.permanent {
			continue
		}
		if _, err := os.Stat(s.sysfs(m.name)); err == nil {
			continue // in force, or on its way in or out
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("looking for livepatch %s: %w", m.name, err))
			continue
		}
		if err := s.unload(ctx, m.name); err != nil && !stillUsed(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
