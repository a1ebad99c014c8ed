// SPDX-License-Identifier: Apache-2.0

package livepatch

import "fmt"

// UnsupportedError says what in a unit cannot be carried by a livepatch module.
// The change that needs it has to wait for the next boot; the other units are
// not affected.
type UnsupportedError struct {
	Unit    string // "fs/ext4/mballoc.o"
	Section string // of the post object, "" if it is not about one
	Symbol  string // "" if it is not about one
	Reason  string
	Err     error // what Unit.Resolve said, nil otherwise
}

func (e *UnsupportedError) Error() string {
	where := e.Unit
	if e.Section != "" {
		where += ": section " + e.Section
	}
	if e.Symbol != "" {
		where += ": " + e.Symbol
	}
	return fmt.Sprintf("writing livepatch module: %s: %s", where, e.Reason)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// TooLargeError: the module would have more sections than MaxSections.
type TooLargeError struct {
	Sections  int
	Functions int // that it replaces
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("writing livepatch module: %d functions to replace make %d sections, and at most %d are sure to load: defer some of them",
		e.Functions, e.Sections, MaxSections)
}
