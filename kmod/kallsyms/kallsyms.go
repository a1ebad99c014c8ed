// SPDX-License-Identifier: Apache-2.0

// Package kallsyms reads the symbols of the running kernel and their addresses
// from /proc/kallsyms.
package kallsyms

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strconv"
	"strings"
)

// maxSize bounds the text: a large kernel with all its modules has some 15 MB.
const maxSize = 256 << 20

// Symbol is one line of /proc/kallsyms.
type Symbol struct {
	Name   string
	Addr   uint64 // live address; per-cpu symbols are small offsets
	Kind   byte   // nm letter
	Module string // "" for the kernel itself; "bpf", "__builtin__ftrace" … for generated code
}

// Table holds all symbols in the order of the file, the order that livepatch
// counts positions in.
type Table struct {
	syms   []Symbol // names are parts of the one text
	byName []uint32 // indices into syms, by module and name, then by position
}

// RestrictedError: the kernel shows zeros instead of addresses.
type RestrictedError struct{}

func (*RestrictedError) Error() string {
	return "reading /proc/kallsyms: addresses are hidden (needs CAP_SYSLOG, and kernel.kptr_restrict below 2)"
}

// Open reads proc/kallsyms below root.
func Open(root fs.FS) (*Table, error) {
	f, err := root.Open("proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("reading /proc/kallsyms: %w", err)
	}
	defer f.Close()
	return Parse(f)
}

// Parse reads the whole table. It returns a *RestrictedError if all addresses are zero.
func Parse(r io.Reader) (*Table, error) {
	var buf strings.Builder
	n, err := io.Copy(&buf, io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading /proc/kallsyms: %w", err)
	}
	if n > maxSize {
		return nil, fmt.Errorf("reading /proc/kallsyms: longer than %d bytes", maxSize)
	}
	text := buf.String()
	t := &Table{syms: make([]Symbol, 0, strings.Count(text, "\n"))}
	shown := false
	for line := 1; text != ""; line++ {
		var l string
		l, text, _ = strings.Cut(text, "\n")
		s, err := parseLine(l)
		if err != nil {
			return nil, fmt.Errorf("reading /proc/kallsyms: line %d: %w", line, err)
		}
		shown = shown || s.Addr != 0
		t.syms = append(t.syms, s)
	}
	switch {
	case len(t.syms) == 0:
		return nil, errEmpty
	case !shown:
		return nil, &RestrictedError{}
	}
	t.index()
	return t, nil
}

var errEmpty = errors.New("reading /proc/kallsyms: it is empty (the kernel has no symbol table)")

var errLine = errors.New("not of the form ADDRESS KIND NAME [MODULE]")

// parseLine reads "ffffffffc0123456 t name\t[module]".
func parseLine(l string) (Symbol, error) {
	addr, rest, ok := strings.Cut(l, " ")
	if !ok || len(rest) < 3 || rest[1] != ' ' {
		return Symbol{}, errLine
	}
	a, err := strconv.ParseUint(addr, 16, 64)
	if err != nil {
		return Symbol{}, errLine
	}
	s := Symbol{Addr: a, Kind: rest[0]}
	name, module, ok := strings.Cut(rest[2:], "\t")
	if ok {
		if len(module) < 3 || module[0] != '[' || module[len(module)-1] != ']' {
			return Symbol{}, errLine
		}
		s.Module = module[1 : len(module)-1]
	}
	if name == "" {
		return Symbol{}, errLine
	}
	s.Name = name
	return s, nil
}

func (t *Table) index() {
	t.byName = make([]uint32, len(t.syms))
	for i := range t.byName {
		t.byName[i] = uint32(i)
	}
	sort.Slice(t.byName, func(i, j int) bool {
		a, b := &t.syms[t.byName[i]], &t.syms[t.byName[j]]
		if c := compare(a, b.Module, b.Name); c != 0 {
			return c < 0
		}
		return t.byName[i] < t.byName[j]
	})
}

func compare(s *Symbol, module, name string) int {
	if c := strings.Compare(s.Module, module); c != 0 {
		return c
	}
	return strings.Compare(s.Name, name)
}

// All returns the symbols in the order of the file. The caller must not change them.
func (t *Table) All() []Symbol { return t.syms }

// Lookup returns the addresses of the symbols called name in module ("" is the
// kernel itself), in the order that livepatch counts positions in: position n is
// the element n-1.
func (t *Table) Lookup(module, name string) []uint64 {
	i := sort.Search(len(t.byName), func(i int) bool {
		return compare(&t.syms[t.byName[i]], module, name) >= 0
	})
	var addrs []uint64
	for ; i < len(t.byName); i++ {
		s := &t.syms[t.byName[i]]
		if s.Module != module || s.Name != name {
			break
		}
		addrs = append(addrs, s.Addr)
	}
	return addrs
}

// Kernel looks up a symbol of the kernel itself. It is Lookup in the form that
// other packages take.
func (t *Table) Kernel(name string) []uint64 { return t.Lookup("", name) }

// Shown reads as much of a kallsyms file as it takes to see that addresses are
// shown. The error is a *RestrictedError if they are not.
func Shown(r io.Reader) error {
	// The first symbols are per-cpu ones, at zero: only a whole file of zeros is the sign.
	sc := bufio.NewScanner(io.LimitReader(r, maxSize))
	lines := 0
	for ; sc.Scan(); lines++ {
		s, err := parseLine(sc.Text())
		if err != nil {
			return fmt.Errorf("reading /proc/kallsyms: line %d: %w", lines+1, err)
		}
		if s.Addr != 0 {
			return nil
		}
	}
	switch {
	case sc.Err() != nil:
		return fmt.Errorf("reading /proc/kallsyms: %w", sc.Err())
	case lines == 0:
		return errEmpty
	}
	return &RestrictedError{}
}

// Module returns the symbols of a loaded module in the order of the file, in which
// livepatch counts them. The caller must not change them.
func (t *Table) Module(name string) []Symbol {
	i := 0
	for i < len(t.syms) && t.syms[i].Module != name {
		i++
	}
	j := i
	for j < len(t.syms) && t.syms[j].Module == name {
		j++
	}
	return t.syms[i:j:j]
}
