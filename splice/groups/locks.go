// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
)

// locking is a call that takes or releases a lock.
type locking struct {
	lock  string // which, as far as the text says
	tail  string // its last member or name
	root  string // the variable that it is reached by
	takes bool
	rcu   bool // a read side section: it protects, but has no order
}

// lockings lists the calls in the order of the text.
func lockings(toks []token) []locking {
	var list []locking
	for i := 0; i+1 < len(toks); i++ {
		if !toks[i].ident() || !toks[i+1].is("(") || i > 0 && (toks[i-1].is("->") || toks[i-1].is(".")) {
			continue
		}
		args := arguments(toks, i+1)
		if name := toks[i].text; name == "guard" && after(toks, i+1) < len(toks) && toks[after(toks, i+1)].is("(") {
			if len(args) == 1 {
				list = append(list, newLocking(spell(args[0]), arguments(toks, after(toks, i+1)), true))
			}
			continue
		} else if name == "scoped_guard" && len(args) > 0 {
			list = append(list, newLocking(spell(args[0]), args[1:], true))
			continue
		}
		name, takes, ok := lockName(toks[i].text)
		if ok {
			list = append(list, newLocking(name, args, takes))
		}
	}
	return list
}

func newLocking(name string, args [][]token, takes bool) locking {
	l := locking{lock: name, tail: name, takes: takes, rcu: strings.HasPrefix(name, "rcu") || strings.HasPrefix(name, "srcu")}
	if len(args) > 0 {
		arg := args[0]
		l.lock = spell(arg)
		for _, t := range arg {
			if t.ident() && !word(t.text) {
				if l.root == "" {
					l.root = t.text
				}
				l.tail = t.text
			}
		}
		if len(arg) == 1 && arg[0].ident() {
			l.lock = name + " " + l.lock // lock_sock(sk): the name says what
		}
	}
	return l
}

// lockName says whether a function takes or releases a lock, and what it is called
// without the words for how.
func lockName(name string) (base string, takes, ok bool) {
	verb := 0
	var rest []string
	for _, w := range strings.Split(strings.Trim(name, "_"), "_") {
		switch w {
		case "lock", "trylock", "relock":
			verb = 1
		case "unlock":
			verb = -1
		case "down":
			verb = 1
			rest = append(rest, "sem")
		case "up":
			verb = -1
			rest = append(rest, "sem")
		case "irq", "irqsave", "irqrestore", "bh", "nested", "interruptible", "killable", "io", "slow", "fast", "timeout", "try", "nest", "raw":
		case "is", "held", "init", "assert", "class", "dep", "map", "stat", "owner", "key", "name", "type", "lockdep", "count",
			"clean", "shutdown", "power", "link", "ifup", "setup", "tear", "wake", "size", "round", "align", "mark", "need", "needs":
			return "", false, false
		case "":
		default:
			rest = append(rest, w)
		}
	}
	if verb == 0 {
		return "", false, false
	}
	base = strings.Join(rest, "_")
	switch base {
	case "sem", "sem_read", "sem_write":
		if verb != 0 && !strings.HasPrefix(strings.Trim(name, "_"), "down") && !strings.HasPrefix(strings.Trim(name, "_"), "up") {
			return "", false, false
		}
	default:
		// down and up are words of much else.
		if strings.Contains(base, "sem") && !strings.Contains(name, "lock") {
			return "", false, false
		}
	}
	return base, verb > 0, true
}

// orders are the pairs of locks of which the second is taken while the first is
// held, as the text runs from top to bottom.
func orders(list []locking) map[[2]string]bool {
	last := make(map[string]int)
	for i, l := range list {
		if !l.takes {
			last[l.lock] = i
		}
	}
	out := make(map[[2]string]bool)
	for i, a := range list {
		for k := i + 1; k < len(list); k++ {
			b := list[k]
			if a.takes && b.takes && !a.rcu && !b.rcu && a.lock != b.lock && (last[a.lock] > k || last[a.lock] == 0) {
				out[[2]string{a.lock, b.lock}] = true
			}
		}
	}
	return out
}

// judgeLocks finds functions that take locks in another order, or another lock than
// before, and joins one that no longer takes a lock with those that newly do.
func (g *Graph) judgeLocks() {
	dropped := make(map[string][]*node) // by the lock's last name
	took := make(map[string][]*node)
	for _, n := range g.nodes {
		if n.trivial || n.e.Kind != freeze.Function && n.e.Kind != freeze.Macro {
			continue
		}
		var pre, post []locking
		if n.pre != nil {
			pre = lockings(n.pre.toks)
		}
		if n.post != nil {
			post = lockings(n.post.toks)
		}
		gone, fresh := takenOnly(pre, post), takenOnly(post, pre)
		if n.both() {
			n.judgeLocks(pre, post, gone, fresh)
		}
		for _, l := range gone {
			if !l.rcu {
				dropped[l.tail] = append(dropped[l.tail], n)
			}
		}
		for _, l := range fresh {
			if !l.rcu {
				took[l.tail] = append(took[l.tail], n)
			}
		}
	}
	for _, tail := range sortedKeys(dropped) {
		for _, x := range took[tail] {
			for _, y := range dropped[tail] {
				if x != y && (calls(x, y) || calls(y, x) || x.e.File == y.e.File && sharesCaller(x, y)) {
					g.link(x, y, WhyLock, tail)
				}
			}
		}
	}
}

// calls says whether a mentions b by a name that b's file or all can mean.
func calls(a, b *node) bool {
	if b.e.Local && a.e.File != b.e.File {
		return false
	}
	for _, name := range b.e.Names {
		if a.pre != nil && a.pre.has(name) || a.post != nil && a.post.has(name) {
			return true
		}
	}
	return false
}

// sharesCaller says whether two functions of a file mention a third of their own
// names' family: foo_open takes over what __foo_open did.
func sharesCaller(a, b *node) bool {
	x, y := strings.Trim(a.name(), "_"), strings.Trim(b.name(), "_")
	return strings.HasPrefix(x, y) || strings.HasPrefix(y, x)
}

func (n *node) judgeLocks(pre, post, gone, fresh []locking) {
	if len(gone) > 0 && len(fresh) > 0 {
		n.why = append(n.why, Reason{Entity: n.e, Code: CodeLocks, What: n.name(),
			Detail: "it takes " + fresh[0].lock + " where it took " + gone[0].lock})
		return
	}
	before, after := orders(pre), orders(post)
	had := make(map[string]bool)
	for _, l := range pre {
		if l.takes {
			had[l.lock] = true
		}
	}
	for _, p := range sortedPairs(after) {
		if had[p[0]] && had[p[1]] && !before[p] {
			n.why = append(n.why, Reason{Entity: n.e, Code: CodeLocks, What: n.name(),
				Detail: "it takes " + p[1] + " while it holds " + p[0] + ", which it did not before"})
			return
		}
	}
}

// takenOnly are the locks that a takes and b does not. A variable that has got
// another name makes no other lock.
func takenOnly(a, b []locking) []locking {
	var list []locking
	for _, l := range a {
		if !l.takes {
			continue
		}
		found := false
		for _, m := range b {
			if m.takes && (m.lock == l.lock || m.tail == l.tail && m.root != l.root && (m.root == "" || l.root == "" || !roots(a)[m.root] && !roots(b)[l.root])) {
				found = true
			}
		}
		if !found && !slices.ContainsFunc(list, func(m locking) bool { return m.lock == l.lock }) {
			list = append(list, l)
		}
	}
	return list
}

func roots(list []locking) map[string]bool {
	m := make(map[string]bool)
	for _, l := range list {
		m[l.root] = true
	}
	return m
}

func sortedPairs(m map[[2]string]bool) [][2]string {
	var list [][2]string
	for p := range m {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b [2]string) int { return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1]) })
	return list
}

func sortedKeys[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}
