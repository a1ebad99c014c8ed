// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/object"
)

// AllTypes is the option with which objects for Prove have to be compiled. Without
// it the compiler leaves out types of which it only used the size or the offset of
// a member. It changes nothing but the debug information.
const AllTypes = "-fno-eliminate-unused-debug-types"

// Object is what a compiled unit says about types, functions and data.
type Object struct {
	types    *Types
	g        *graph
	complete bool // compiled with AllTypes

	defined  map[string]bool // functions whose code is here; data that are here
	external map[string]bool // known to other units
	percpu   map[string]bool // data in the per-CPU section
	writable map[string]bool // data that can change, or that others know

	// What refers to what: function or data, by the names they have in the source.
	refs    map[string]map[string]bool
	undef   map[string]bool     // symbols that other objects have
	data    map[string]bool     // those in refs that are data
	symbols map[string][]string // functions in the symbol table, by name in the source
}

// ReadObject reads a relocatable object with debug information (DWARF 4 or 5).
// Errors about the contents wrap ErrFormat.
func ReadObject(r io.ReaderAt, size int64) (*Object, error) {
	o := &Object{defined: map[string]bool{}, external: map[string]bool{}, percpu: map[string]bool{}, writable: map[string]bool{},
		refs: map[string]map[string]bool{}, undef: map[string]bool{}, data: map[string]bool{}, symbols: map[string][]string{}}
	var err error
	if o.types, err = readDWARF(r, o); err != nil {
		return nil, err
	}
	elfObject, err := object.Read(r, size)
	if errors.Is(err, object.ErrFormat) {
		return nil, fmt.Errorf("reading symbols: %w: %w", err, ErrFormat)
	} else if err != nil {
		return nil, fmt.Errorf("reading symbols: %w", err)
	}
	o.readSymbols(elfObject)
	return o, nil
}

// OpenObject is ReadObject for a file.
func OpenObject(path string) (*Object, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	o, err := ReadObject(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

// Types are the types of the object, as FromDWARF returns them.
func (o *Object) Types() *Types { return o.types }

// sourceName is what the source calls a symbol: parts, clones and static data of
// functions have a suffix that the compiler gave them.
func sourceName(symbol string) string {
	if i := strings.IndexByte(symbol, '.'); i > 0 {
		return symbol[:i]
	}
	return symbol
}

// clone says whether the compiler may have changed what a function is passed.
func clone(symbol string) bool {
	return strings.Contains(symbol, ".isra.") || strings.Contains(symbol, ".constprop.") || strings.Contains(symbol, ".part.")
}

// tables are sections with places in code: entries are no uses of the functions
// that they lie in.
var tables = []string{"__mcount_loc", "__patchable_function_entries", ".orc_unwind", ".return_sites", ".retpoline_sites",
	".call_sites", ".ibt_endbr_seal", ".cfi_sites", "__bug_table", ".smp_locks", ".altinstructions", ".altinstr_aux",
	".parainstructions", ".static_call_sites", "__jump_table", "__ex_table", ".discard", ".eh_frame", ".debug_", ".sframe"}

func (o *Object) readSymbols(e *object.Object) {
	within := map[*object.Section][]*object.Symbol{}
	for _, s := range e.Symbols {
		if s.Type == elf.STT_FILE {
			continue
		}
		name := sourceName(s.Name)
		if s.Section == nil {
			o.undef[name] = true
			continue
		}
		if s.Type == elf.STT_SECTION || s.Name == "" {
			continue
		}
		within[s.Section] = append(within[s.Section], s)
		switch {
		case s.Type == elf.STT_FUNC:
			o.symbols[name] = append(o.symbols[name], s.Name)
			o.defined[name] = true
		case s.Section.Flags&elf.SHF_EXECINSTR == 0:
			o.data[name] = true
			o.defined[name] = true
			if strings.HasPrefix(s.Section.Name, ".data..percpu") {
				o.percpu[name] = true
			}
			if s.Bind != elf.STB_LOCAL || !strings.HasPrefix(s.Section.Name, ".rodata") {
				o.writable[name] = true
			}
		}
		if s.Bind != elf.STB_LOCAL {
			o.external[name] = true
		}
	}
	for _, sec := range e.Sections {
		if sec.Flags&elf.SHF_ALLOC == 0 || slices.ContainsFunc(tables, func(p string) bool { return strings.HasPrefix(sec.Name, p) }) {
			continue
		}
		for _, r := range sec.Relocs {
			if r.Symbol != nil {
				o.refer(sec, r, within)
			}
		}
		// Within a section the assembler needs no relocations.
		if list := within[sec]; sec.Flags&elf.SHF_EXECINSTR != 0 && len(list) > 1 {
			for _, from := range list {
				for _, to := range list {
					o.addRef(sourceName(from.Name), sourceName(to.Name))
				}
			}
		}
	}
}

// refer records one relocation. What is in no symbol belongs to all of its section.
func (o *Object) refer(sec *object.Section, r object.Reloc, within map[*object.Section][]*object.Symbol) {
	var from, to []string
	for _, s := range within[sec] {
		if s.Size == 0 || r.Offset >= s.Value && r.Offset < s.Value+s.Size {
			from = append(from, sourceName(s.Name))
		}
	}
	if len(from) == 0 {
		from = append(from, sec.Name)
		o.data[sec.Name] = true
	}
	if s := r.Symbol; s.Section != nil && (s.Type == elf.STT_SECTION || s.Name == "") {
		for _, t := range within[s.Section] {
			to = append(to, sourceName(t.Name))
		}
		to = append(to, s.Section.Name)
	} else {
		to = append(to, sourceName(s.Name))
	}
	for _, f := range from {
		for _, t := range to {
			o.addRef(f, t)
		}
	}
}

func (o *Object) addRef(from, to string) {
	if o.refs[from] == nil {
		o.refs[from] = map[string]bool{}
	}
	o.refs[from][to] = true
}

// reached are the names that a function refers to, itself and through data.
func (o *Object) reached(function string) map[string]bool {
	seen := map[string]bool{}
	queue := []string{function}
	for len(queue) > 0 {
		from := queue[0]
		queue = queue[1:]
		for to := range o.refs[from] {
			if !seen[to] {
				seen[to] = true
				if o.data[to] {
					queue = append(queue, to)
				}
			}
		}
	}
	return seen
}
