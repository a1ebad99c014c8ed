// SPDX-License-Identifier: Apache-2.0

package objdiff

import (
	"debug/elf"
	"slices"

	"github.com/upsplice/upsplice/splice/object"
)

// Join relates the Results of units of one target to each other and changes them
// accordingly.
//
// A function that one unit no longer has and another one has now was moved: the
// running one is redirected to the new one. It becomes a KindChanged Change with
// Moved set in the Result of the unit that has it now, and leaves the other
// Result. Global functions are the same if their names are; where one of the two
// is static, they must do the same, or call one and the same function too, since
// names of static functions are given twice.
//
// Data that moved stays where it runs: it leaves both Results and gets its twin,
// which is a symbol of the other unit's pre object. If it has another initial
// value, or if it cannot be told whether a static variable is the same one, there
// is a Refusal.
//
// A global function that is new and that another of the units has as a weak one
// takes that one's place. A global function that is gone while another unit has a
// weak one is refused: which one the others called is not known here.
func Join(results []*Result) {
	j := &joiner{results: results, cross: map[[2]int]*differ{}}
	j.joinWeak()
	j.joinFunctions()
	j.joinData()
	for _, r := range results {
		r.settle()
	}
}

type joiner struct {
	results []*Result
	cross   map[[2]int]*differ
	moved   []move
}

// move is a function that went from one unit to another.
type move struct {
	from, to  int
	pre, post *object.Symbol
}

// located is a Change with the number of the Result that has it.
type located struct {
	unit int
	Change
}

// differ compares the old object of one unit with the new object of another.
func (j *joiner) differ(from, to int) *differ {
	key := [2]int{from, to}
	d := j.cross[key]
	if d == nil {
		d = &differ{pre: j.results[from].pre, post: j.results[to].post,
			twin: map[*object.Symbol]*object.Symbol{}, back: map[*object.Symbol]*object.Symbol{}}
		d.correlate()
		j.cross[key] = d
	}
	return d
}

// byKind lists changes of a kind by their name in the source.
func (j *joiner) byKind(list func(*Result) []Change, kind ChangeKind) map[string][]located {
	m := map[string][]located{}
	for i, r := range j.results {
		for _, c := range list(r) {
			if c.Kind == kind && r.pre != nil {
				m[plain(c.Name)] = append(m[plain(c.Name)], located{i, c})
			}
		}
	}
	return m
}

func functionsOf(r *Result) []Change { return r.Functions }
func dataOf(r *Result) []Change      { return r.Data }

func (j *joiner) joinFunctions() {
	removed := j.byKind(functionsOf, KindRemoved)
	added := j.byKind(functionsOf, KindNew)
	for _, name := range sortedKeys(added, nil) {
		olds, news := removed[name], added[name]
		if numbered(name) || len(olds) != 1 || len(news) != 1 || olds[0].unit == news[0].unit {
			continue
		}
		old, now := olds[0], news[0]
		d := j.differ(old.unit, now.unit)
		why := d.codeDifference(old.Pre, now.Post)
		bothGlobal := old.Pre.Bind != elf.STB_LOCAL && now.Post.Bind != elf.STB_LOCAL
		if !bothGlobal && why != "" && !d.shareCallee(old.Pre, now.Post) {
			continue
		}
		j.moved = append(j.moved, move{old.unit, now.unit, old.Pre, now.Post})
		if !old.Fentry && why == "" {
			continue // both do the same: callers may use either
		}
		if why == "" {
			why = "moved from another unit"
		} else {
			why = "moved from another unit, " + why
		}
		j.replace(now, Change{Name: now.Name, Kind: KindChanged, Pre: old.Pre, Post: now.Post, Why: why,
			Section: now.Section, Fentry: old.Fentry, Moved: true})
		j.drop(old)
		if !old.Fentry {
			j.refuse(now.unit, now.Change, "no fentry: the changed function cannot be redirected: "+now.Name+": it was moved from another unit")
		}
	}
}

// shareCallee says that two functions refer to a function of the same name that
// is not part of the compiler's or the kernel's own machinery.
func (d *differ) shareCallee(pre, post *object.Symbol) bool {
	callees := func(s *side, f *object.Symbol) map[string]bool {
		m := map[string]bool{}
		for _, r := range s.body(f).refs {
			t := r.targets[0]
			if r.branch && (t.kind == toOutside || t.kind == toSymbol) && t.sym != f && !machinery[t.sym.Name] {
				m[stem(t.sym.Name)] = true
			}
		}
		return m
	}
	old := callees(d.pre, pre)
	for name := range callees(d.post, post) {
		if old[name] {
			return true
		}
	}
	return false
}

// machinery is what any function may call, whatever it does.
var machinery = map[string]bool{
	"__fentry__": true, "__x86_return_thunk": true, "__stack_chk_fail": true, "_printk": true, "printk": true, "__warn_printk": true,
	"__SCT__cond_resched": true, "__SCT__might_resched": true, "__SCT__preempt_schedule": true, "__SCT__preempt_schedule_notrace": true,
}

func (j *joiner) joinWeak() {
	type weak struct {
		unit int
		pre  *object.Symbol
	}
	weaks := map[string]weak{}
	for i, r := range j.results {
		for post, pre := range r.Twin {
			if post.Bind == elf.STB_WEAK && post.Section != nil && pre.Bind == elf.STB_WEAK && pre.Section != nil && post.Type == elf.STT_FUNC {
				weaks[post.Name] = weak{i, pre}
			}
		}
	}
	for i, r := range j.results {
		for _, c := range slices.Clone(r.Functions) {
			w, ok := weaks[c.Name]
			switch {
			case !ok || w.unit == i:
			case c.Kind == KindNew && c.Post.Bind == elf.STB_GLOBAL:
				n := Change{Name: c.Name, Kind: KindChanged, Pre: w.pre, Post: c.Post, Why: "takes the place of a weak function of another unit",
					Section: c.Section, Fentry: j.results[w.unit].fentry[w.pre], Moved: true}
				j.replace(located{i, c}, n)
				if !n.Fentry {
					j.refuse(i, c, "no fentry: the changed function cannot be redirected: "+c.Name+": a weak function of another unit")
				}
			case c.Kind == KindRemoved && c.Pre.Bind == elf.STB_GLOBAL:
				j.refuse(i, c, "weak: "+c.Name+" is gone, and the weak function of another unit takes its place")
			}
		}
	}
}

func (j *joiner) refuse(unit int, c Change, reason string) {
	r := j.results[unit]
	r.Refusals = append(r.Refusals, Refusal{Section: c.Section, Symbol: c.Name, Reason: reason})
}

// replace puts another Change in the place of one, and sets the twin.
func (j *joiner) replace(old located, c Change) {
	r := j.results[old.unit]
	for i := range r.Functions {
		if r.Functions[i].Post == old.Post && r.Functions[i].Kind == old.Kind {
			r.Functions[i] = c
		}
	}
	j.setTwin(old.unit, c.Post, c.Pre)
}

// setTwin sets the twin of a symbol, and of those in other units that mean it.
func (j *joiner) setTwin(unit int, post, pre *object.Symbol) {
	j.results[unit].Twin[post] = pre
	if post.Bind == elf.STB_LOCAL {
		return
	}
	for _, r := range j.results {
		for _, s := range r.unknown {
			if s.Name == post.Name && r.Twin[s] == nil {
				r.Twin[s] = pre
			}
		}
	}
}

// drop takes a Change out of its Result.
func (j *joiner) drop(old located) {
	same := func(c Change) bool { return c.Pre == old.Pre && c.Post == old.Post }
	r := j.results[old.unit]
	r.Functions = slices.DeleteFunc(r.Functions, same)
	r.Data = slices.DeleteFunc(r.Data, same)
}
