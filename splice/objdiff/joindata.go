// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"

	"github.com/upsplice/upsplice/splice/object"
)

func (j *joiner) joinData() {
	removed := j.byKind(dataOf, KindRemoved)
	added := j.byKind(dataOf, KindNew)
	for _, name := range sortedKeys(added, nil) {
		olds, news := removed[name], added[name]
		if numbered(name) || len(olds) != 1 || len(news) != 1 || olds[0].unit == news[0].unit {
			continue
		}
		old, now := olds[0], news[0]
		bothGlobal := old.Pre.Bind != elf.STB_LOCAL && now.Post.Bind != elf.STB_LOCAL
		switch {
		case bothGlobal || j.usedByMoved(old, now):
			j.moveData(old, now)
		case now.Post.Section.Flags&elf.SHF_WRITE != 0 && place(old.Pre) == place(now.Post):
			j.refuse(now.unit, now.Change, "existing data changed: cannot tell whether the static "+name+" is that of another unit")
		}
	}
	j.moveLocals()
}

// usedByMoved says that a function that moved refers to the old and to the new variable.
func (j *joiner) usedByMoved(old, now located) bool {
	for _, m := range j.moved {
		if m.from == old.unit && m.to == now.unit &&
			j.results[m.from].pre.refersTo(m.pre, old.Pre) && j.results[m.to].post.refersTo(m.post, now.Post) {
			return true
		}
	}
	return false
}

func (s *side) refersTo(f, sym *object.Symbol) bool {
	for _, r := range s.fields(f) {
		if r.targets[0].sym == sym {
			return true
		}
	}
	return false
}

// moveLocals moves the static variables of functions that moved.
func (j *joiner) moveLocals() {
	for _, m := range j.moved {
		d := j.differ(m.from, m.to)
		gone := map[string]bool{}
		for _, c := range j.results[m.from].Data {
			if c.Kind == KindRemoved && numbered(c.Name) && d.pre.refersTo(m.pre, c.Pre) {
				gone[stem(c.Name)] = true
			}
		}
		for _, c := range append([]Change{}, j.results[m.to].Data...) {
			if c.Kind != KindNew || !numbered(c.Name) || !gone[stem(c.Name)] || !d.post.refersTo(m.post, c.Post) {
				continue
			}
			if a := d.twin[c.Post]; a != nil && a.Section != nil {
				j.moveData(located{m.from, Change{Name: a.Name, Kind: KindRemoved, Pre: a, Section: a.Section.Name}}, located{m.to, c})
			} else if c.Post.Section.Flags&elf.SHF_WRITE != 0 && !isPerSite(c.Name) {
				j.refuse(m.to, c, "existing data changed: cannot tell which static variable of the old code is "+c.Name)
			}
		}
	}
}

// moveData makes the running datum the twin of the new one.
func (j *joiner) moveData(old, now located) {
	d := j.differ(old.unit, now.unit)
	why := d.difference(d.pre.body(old.Pre), d.post.body(now.Post), 0)
	if isPercpu(old.Pre) != isPercpu(now.Post) || (old.Pre.Section.Flags^now.Post.Section.Flags)&elf.SHF_WRITE != 0 {
		why = "moved from section " + old.Section + " to " + now.Section
	}
	j.drop(old)
	j.drop(now)
	r := j.results[now.unit]
	j.setTwin(now.unit, now.Post, old.Pre)
	if why != "" {
		r.Data = append(r.Data, Change{Name: now.Name, Kind: KindChanged, Pre: old.Pre, Post: now.Post, Why: why, Section: now.Section, Moved: true})
		j.refuse(now.unit, now.Change, "existing data changed: "+now.Name)
	}
}
