// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"strings"
	"sync"
)

// table numbers names. 0 is no name.
type table struct {
	mu    sync.RWMutex
	ids   map[string]uint32
	names []string
}

func newTable() *table {
	return &table{ids: make(map[string]uint32), names: []string{""}}
}

// interner is the view of the table that one goroutine uses.
type interner struct {
	table *table
	known map[string]uint32
}

func newInterner(t *table) *interner {
	return &interner{table: t, known: make(map[string]uint32)}
}

// maxKnown bounds the memory of an interner.
const maxKnown = 1 << 18

func (n *interner) id(name string) uint32 {
	if id, ok := n.known[name]; ok {
		return id
	}
	t := n.table
	t.mu.Lock()
	id, ok := t.ids[name]
	if !ok {
		name = strings.Clone(name) // the file's text is let go
		id = uint32(len(t.names))
		t.names = append(t.names, name)
		t.ids[name] = id
	}
	name = t.names[id]
	t.mu.Unlock()
	if len(n.known) >= maxKnown {
		clear(n.known)
	}
	n.known[name] = id
	return id
}

// lookup returns 0 for a name that no file has.
func (t *table) lookup(name string) uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.ids[name]
}

func (t *table) name(id uint32) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.names[id]
}
