// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"encoding/json"
	"fmt"
	"io"
)

// unitsFormat is the version of the form that EncodeUnits writes.
const unitsFormat = 1

const maxStrings = 1 << 20

// encoded is the form of a unit list for storage. The options of the units repeat:
// with a table of strings the list of a whole kernel takes 2 MB instead of 26.
type encoded struct {
	Format  int           `json:"format"`
	Strings []string      `json:"strings"`
	Units   []encodedUnit `json:"units"`
}

type encodedUnit struct {
	Object  int   `json:"o"`
	Source  int   `json:"s"`
	Target  int   `json:"t"`
	Args    []int `json:"a"`
	Objtool bool  `json:"j,omitempty"`
}

// EncodeUnits writes a unit list for DecodeUnits.
func EncodeUnits(w io.Writer, units []Unit) error {
	e := encoded{Format: unitsFormat, Strings: []string{}, Units: make([]encodedUnit, 0, len(units))}
	table := make(map[string]int)
	number := func(s string) int {
		n, ok := table[s]
		if !ok {
			n = len(e.Strings)
			table[s] = n
			e.Strings = append(e.Strings, s)
		}
		return n
	}
	for _, u := range units {
		eu := encodedUnit{Object: number(u.Object), Source: number(u.Source), Target: number(u.Target), Objtool: u.Objtool}
		for _, a := range u.Args {
			eu.Args = append(eu.Args, number(a))
		}
		e.Units = append(e.Units, eu)
	}
	return json.NewEncoder(w).Encode(e)
}

// DecodeUnits reads what EncodeUnits wrote.
func DecodeUnits(r io.Reader) ([]Unit, error) {
	var e encoded
	if err := json.NewDecoder(io.LimitReader(r, 256<<20)).Decode(&e); err != nil {
		return nil, fmt.Errorf("reading a unit list: %w", err)
	}
	if e.Format != unitsFormat {
		return nil, fmt.Errorf("reading a unit list: format %d, not %d", e.Format, unitsFormat)
	}
	if len(e.Strings) > maxStrings || len(e.Units) > maxUnits {
		return nil, fmt.Errorf("reading a unit list: %d units with %d strings: too many", len(e.Units), len(e.Strings))
	}
	bad := false
	text := func(n int) string {
		if n < 0 || n >= len(e.Strings) {
			bad = true
			return ""
		}
		return e.Strings[n]
	}
	units := make([]Unit, 0, len(e.Units))
	for _, eu := range e.Units {
		u := Unit{Object: text(eu.Object), Source: text(eu.Source), Target: text(eu.Target), Objtool: eu.Objtool}
		for _, a := range eu.Args {
			u.Args = append(u.Args, text(a))
		}
		units = append(units, u)
	}
	if bad {
		return nil, fmt.Errorf("reading a unit list: it refers to strings that it does not have")
	}
	return units, nil
}
