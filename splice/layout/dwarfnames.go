// SPDX-License-Identifier: Apache-2.0

package layout

import "debug/dwarf"

// names collects the functions and data of an object while its types are read.
type names struct {
	vars    []variable
	at      map[dwarf.Offset]int  // of vars
	static  map[dwarf.Offset]bool // local variables that have an address
	around  []string              // functions that are open, by name; "" for what is none
	defined map[string]bool       // functions and data with more than a declaration
	global  map[string]bool
}

type variable struct {
	name, function     string
	typ, origin        dwarf.Offset
	hasType, hasOrigin bool
	declared, external bool
	off                dwarf.Offset
}

// function is the name of the innermost function around.
func (n *names) function() string {
	for i := len(n.around) - 1; i >= 0; i-- {
		if n.around[i] != "" {
			return n.around[i]
		}
	}
	return ""
}

// subprogram makes a node of a function's prototype.
func (b *dwarfReader) subprogram(e *dwarf.Entry, n node) int {
	id := len(b.g.nodes)
	name := n.name
	n = node{kind: kindFunc}
	b.g.nodes = append(b.g.nodes, n)
	if to, ok := e.Val(dwarf.AttrType).(dwarf.Offset); ok {
		b.refs = append(b.refs, dwarfRef{id, -1, to})
	}
	// The compiler's own functions have no prototype here.
	if linkage, _ := e.Val(dwarf.AttrLinkageName).(string); name != "" && linkage == "" {
		b.g.funcs = append(b.g.funcs, named{name, id})
		if declared, _ := e.Val(dwarf.AttrDeclaration).(bool); !declared {
			b.names.defined[name] = true
		}
		if external, _ := e.Val(dwarf.AttrExternal).(bool); external {
			b.names.global[name] = true
		}
	}
	return id
}

const opAddr = 0x03 // DW_OP_addr

func (b *dwarfReader) variable(e *dwarf.Entry) {
	v := variable{function: b.names.function(), off: e.Offset}
	v.name, _ = e.Val(dwarf.AttrName).(string)
	v.typ, v.hasType = e.Val(dwarf.AttrType).(dwarf.Offset)
	v.declared, _ = e.Val(dwarf.AttrDeclaration).(bool)
	v.external, _ = e.Val(dwarf.AttrExternal).(bool)
	v.origin, v.hasOrigin = e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
	if loc, _ := e.Val(dwarf.AttrLocation).([]byte); len(loc) == 9 && loc[0] == opAddr {
		b.names.static[e.Offset] = true
		if v.hasOrigin {
			b.names.static[v.origin] = true
		}
	}
	if v.hasOrigin {
		return // named where it comes from
	}
	v.origin, v.hasOrigin = e.Val(dwarf.AttrSpecification).(dwarf.Offset)
	b.names.at[e.Offset] = len(b.names.vars)
	b.names.vars = append(b.names.vars, v)
}

// data adds the variables that are not on the stack.
func (b *dwarfReader) data() {
	for _, v := range b.names.vars {
		if i, ok := b.names.at[v.origin]; ok && v.hasOrigin {
			of := b.names.vars[i]
			v.name, v.external = of.name, v.external || of.external
			if !v.hasType {
				v.typ, v.hasType = of.typ, of.hasType
			}
		}
		id, ok := b.index[v.typ]
		if v.name == "" || !v.hasType || !ok {
			continue
		}
		key := v.name
		if v.function != "" && !v.external {
			if !b.names.static[v.off] {
				continue
			}
			key = v.function + "." + v.name
		}
		b.g.vars = append(b.g.vars, named{key, id})
		if !v.declared {
			b.names.defined[key] = true
		}
		if v.external {
			b.names.global[key] = true
		}
	}
}
