// SPDX-License-Identifier: Apache-2.0

// Package object reads and writes relocatable ELF objects.
//
// It holds an object as plain linked structs, so that the differ, the matcher
// and the module writer share one model. Format: System V ABI, "Object Files",
// and the processor supplements for x86-64 and AArch64.
package object

import "debug/elf"

// Object is one relocatable ELF file (ET_REL) held in memory.
type Object struct {
	Machine  elf.Machine
	Flags    uint32
	Sections []*Section // without the null section; relocation sections are folded into Section.Relocs
	Symbols  []*Symbol  // without the null symbol, in file order
}

// Section is one section with the relocations that apply to it.
type Section struct {
	Name      string
	Type      elf.SectionType
	Flags     elf.SectionFlag
	Align     uint64
	EntSize   uint64
	Data      []byte // nil for SHT_NOBITS
	Size      uint64 // bytes; len(Data) unless SHT_NOBITS
	Relocs    []Reloc
	Link      *Section // SHF_LINK_ORDER and the like; nil if none
	Group     string   // name of the COMDAT group the section is in, if any
	KlpRelocs []KlpRelocs
}

// KlpRelocs is an additional relocation section for the same data, applied by
// the livepatch core instead of the module loader
// (Documentation/livepatch/module-elf-format.rst).
type KlpRelocs struct {
	Name   string // ".klp.rela.OBJECT.SECTION"
	Relocs []Reloc
}

// Symbol is one symbol table entry.
type Symbol struct {
	Name    string
	Bind    elf.SymBind
	Type    elf.SymType
	Other   byte
	Section *Section         // nil when Special says where the symbol is
	Special elf.SectionIndex // SHN_UNDEF, SHN_ABS, SHN_COMMON or SHN_LIVEPATCH when Section is nil
	Value   uint64           // offset in Section
	Size    uint64           // bytes
}

// SHN_LIVEPATCH marks symbols that the livepatch core resolves
// (include/uapi/linux/elf.h).
const SHN_LIVEPATCH elf.SectionIndex = 0xff20

// SHF_RELA_LIVEPATCH marks relocation sections that the livepatch core applies
// (include/uapi/linux/elf.h).
const SHF_RELA_LIVEPATCH elf.SectionFlag = 0x00100000

// Reloc is one RELA entry.
type Reloc struct {
	Offset uint64  // in the section, bytes
	Type   uint32  // R_X86_64_… or R_AARCH64_…
	Symbol *Symbol // nil for the null symbol, as in R_X86_64_NONE
	Addend int64
}
