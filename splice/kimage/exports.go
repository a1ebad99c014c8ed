// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"encoding/binary"
	"fmt"
)

// place is a run of table bytes at its link address.
type place struct {
	addr uint64
	data []byte
}

// prel resolves the 32-bit number at off that counts from its own address. ok is
// false for zero, which stands for "none".
func (p place) prel(off int) (addr uint64, ok bool) {
	v := int32(binary.LittleEndian.Uint32(p.data[off:]))
	return p.addr + uint64(off) + uint64(int64(v)), v != 0
}

// readExports reads the ksymtab sections and their CRCs (include/linux/export.h).
func (im *Image) readExports(l *layouts) error {
	rec, err := l.of("kernel_symbol", "value_offset", "name_offset", "namespace_offset")
	if err != nil {
		return err
	}
	im.Exports = map[string]Export{}
	for _, suffix := range []string{"", "_gpl"} {
		tab := im.section("__ksymtab" + suffix)
		if tab == nil {
			continue
		}
		var crcs []byte
		if s := im.section("__kcrctab" + suffix); s != nil {
			crcs = s.Data
		}
		if err := im.readExportTable(rec, place{tab.Addr, tab.Data}, crcs, suffix == "_gpl"); err != nil {
			return fmt.Errorf("reading exports of section %s: %w", tab.Name, err)
		}
	}
	return nil
}

func (im *Image) readExportTable(rec record, p place, crcs []byte, gpl bool) error {
	n := len(p.data) / rec.size
	if len(p.data)%rec.size != 0 || (crcs != nil && len(crcs) != 4*n) {
		return fmt.Errorf("%d bytes with %d bytes of CRCs are no whole number of entries of %d", len(p.data), len(crcs), rec.size)
	}
	for i := range n {
		at := i * rec.size
		value, _ := p.prel(at + rec.fields["value_offset"])
		nameAt, _ := p.prel(at + rec.fields["name_offset"])
		name := im.cstring(nameAt)
		if name == "" {
			return fmt.Errorf("entry %d has no name", i)
		}
		e := Export{Addr: value, GPLOnly: gpl}
		if ns, ok := p.prel(at + rec.fields["namespace_offset"]); ok {
			e.Namespace = im.cstring(ns)
		}
		if crcs != nil {
			e.CRC, e.HasCRC = binary.LittleEndian.Uint32(crcs[4*i:]), true
		}
		im.Exports[name] = e
	}
	return nil
}
