// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"path"
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
)

// verbs are the words of functions that take something (positive) and give it back.
// Those of one number belong together; the rest of the name must be alike.
var verbs = map[string]int{
	"get": 1, "hold": 1, "grab": 1, "inc": 1, "ref": 1, "acquire": 1, "pin": 1,
	"put": -1, "drop": -1, "unref": -1, "dec": -1, "deref": -1, "release": -1, "unpin": -1,
	"lock": 2, "trylock": 2, "unlock": -2,
	"alloc": 3, "zalloc": 3, "create": 3, "free": -3, "destroy": -3,
	"enable": 4, "disable": -4,
	"register": 5, "unregister": -5, "deregister": -5,
	"start": 6, "stop": -6, "begin": 6, "end": -6,
	"charge": 7, "uncharge": -7,
	"map": 8, "unmap": -8,
	"add": 9, "insert": 9, "enqueue": 9, "link": 9, "attach": 9, "del": -9, "remove": -9, "erase": -9, "dequeue": -9, "unlink": -9, "detach": -9,
	"reserve": 10, "unreserve": -10, "claim": 10, "unclaim": -10, "request": 11, "prepare": 12, "unprepare": -12,
	"block": 13, "unblock": -13, "freeze": 14, "unfreeze": -14, "thaw": -14, "suspend": 15, "resume": -15, "open": 16, "close": -16,
	"init": 17, "exit": -17, "cleanup": -17, "fini": -17, "uninit": -17,
}

// whole names whose parts are no words.
var wholeVerbs = map[string]struct {
	base string
	sign int
}{
	"igrab": {"inode ref", 1}, "ihold": {"inode ref", 1}, "iget": {"inode ref", 1}, "iput": {"inode ref", -1},
	"dget": {"dentry ref", 1}, "dput": {"dentry ref", -1}, "fget": {"file ref", 1}, "fput": {"file ref", -1},
	"mntget": {"mount ref", 1}, "mntput": {"mount ref", -1}, "mmget": {"mm users", 1}, "mmput": {"mm users", -1},
	"mmgrab": {"mm count", 1}, "mmdrop": {"mm count", -1}, "kmap": {"kmap", 1}, "kunmap": {"kmap", -1},
	"kmalloc": {"memory", 1}, "kzalloc": {"memory", 1}, "kcalloc": {"memory", 1}, "kvmalloc": {"memory", 1}, "kvzalloc": {"memory", 1},
	"vmalloc": {"memory", 1}, "vzalloc": {"memory", 1}, "kmemdup": {"memory", 1}, "kstrdup": {"memory", 1}, "kmalloc_array": {"memory", 1},
	"kfree": {"memory", -1}, "kvfree": {"memory", -1}, "vfree": {"memory", -1}, "kfree_rcu": {"memory", -1}, "kfree_sensitive": {"memory", -1},
}

// generic are rests of names that say nothing of what is taken: the argument does.
var generic = set("", "refcount", "atomic", "atomic64", "atomic_long", "kref", "percpu", "percpu_counter", "mutex", "spin", "raw_spin", "read", "write",
	"list", "hlist", "hlist_nulls", "rb", "static_branch", "static_key", "slow", "memory", "this_cpu", "local", "module", "cache", "kmem_cache",
	"ida", "idr", "xa", "rhashtable", "sem", "bit_spin", "irq", "work", "timer", "head", "tail")

// other meanings of the words.
var noVerbs = []string{"nla_", "nlmsg_", "genlmsg_", "get_user", "put_user", "unaligned", "seq_", "skb_put", "__skb_put", "drvdata", "irq_enable", "irq_disable",
	"preempt_", "rcu_", "srcu_", "trace_", "ktime_", "time_", "jiffies", "msleep", "snprintf", "cpu_to_", "copy_", "test_", "_is_", "is_", "_len", "_size", "stats", "_irqs",
	"get_unaligned", "put_unaligned", "put_page_ops", "list_add_valid", "list_del_valid", "be16", "be32", "le16", "le32", "mutex_lock", "spin_lock", "spin_unlock", "mutex_unlock",
	"read_lock", "read_unlock", "write_lock", "write_unlock", "devm_", "lockdep", "might_", "debug_", "pr_", "dev_err", "warn"}

// taking is what a call takes or gives back: which, and the sign.
func taking(name string) (base string, sign int, ok bool) {
	trimmed := strings.TrimLeft(name, "_")
	if w, ok := wholeVerbs[trimmed]; ok {
		return w.base, w.sign, true
	}
	if trimmed == strings.ToUpper(trimmed) {
		return "", 0, false
	}
	for _, no := range noVerbs {
		if strings.HasPrefix(no, "_") && strings.Contains(name, no) || strings.HasPrefix(trimmed, strings.TrimLeft(no, "_")) && !strings.HasPrefix(no, "_") {
			return "", 0, false
		}
	}
	verb := 0
	var rest []string
	for _, w := range strings.Split(trimmed, "_") {
		if v := verbs[w]; v != 0 && verb == 0 {
			verb = v
			continue
		}
		switch w {
		case "try", "not", "zero", "and", "test", "return", "return0", "unless", "live", "many", "one", "all", "rcu", "bh", "sync", "nowarn", "noresume",
			"cached", "relaxed", "negative", "irqsave", "irqrestore", "irq", "nested", "interruptible", "killable", "tail", "init", "careful", "safe", "mutex", "async":
			continue
		}
		if w == "folio" {
			w = "page" // its reference is that of its first page
		}
		rest = append(rest, w)
	}
	if verb == 0 {
		return "", 0, false
	}
	sign = 1
	if verb < 0 {
		sign, verb = -1, -verb
	}
	return strings.Join(rest, "_") + " " + verbClass[verb], sign, true
}

var verbClass = map[int]string{1: "ref", 2: "lock", 3: "memory", 4: "enable", 5: "register", 6: "start", 7: "charge", 8: "map", 9: "link",
	10: "reserve", 11: "request", 12: "prepare", 13: "block", 14: "freeze", 15: "suspend", 16: "open", 17: "init"}

// takings counts what the text takes (0) and gives back (1), by what it is.
func takings(s *side) map[string][2]int {
	out := make(map[string][2]int)
	if s == nil {
		return out
	}
	toks := s.toks
	count := func(key string, sign int) {
		c := out[key]
		if sign > 0 {
			c[0]++
		} else {
			c[1]++
		}
		out[key] = c
	}
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		// A counter that is a plain member.
		if (t.is("++") || t.is("--")) && i > 1 && toks[i-1].ident() && toks[i-2].is("->") {
			count("count of "+toks[i-1].text, map[string]int{"++": 1, "--": -1}[t.text])
			continue
		}
		if !t.ident() || i+1 >= len(toks) || !toks[i+1].is("(") || i > 0 && (toks[i-1].is("->") || toks[i-1].is(".")) {
			continue
		}
		base, sign, ok := taking(t.text)
		if !ok {
			continue
		}
		what, _, _ := strings.Cut(base, " ")
		if generic[what] {
			tail := argumentTail(arguments(toks, i+1))
			if sign > 0 && strings.HasSuffix(base, "memory") {
				tail = assignedTo(toks, i)
			}
			if tail == "" {
				continue
			}
			if strings.HasSuffix(base, "memory") {
				base = "memory"
			}
			base += " " + tail
		}
		count(base, sign)
	}
	return out
}

// argumentTail is the last member of the first argument, or of the second where
// the first is a number; "" for a variable of the function, which says nothing.
func argumentTail(args [][]token) string {
	for _, a := range args {
		for i := len(a) - 1; i > 0; i-- {
			if a[i].ident() && (a[i-1].is("->") || a[i-1].is(".")) {
				return a[i].text
			}
		}
		if len(a) == 2 && a[0].is("&") && a[1].ident() {
			return a[1].text
		}
	}
	return ""
}

// assignedTo is the member that the value of the call at i becomes.
func assignedTo(toks []token, i int) string {
	if i > 3 && toks[i-1].is("=") && toks[i-2].ident() && (toks[i-3].is("->") || toks[i-3].is(".")) {
		return toks[i-2].text
	}
	return ""
}

// uneven is a change of one side of a pair in a function without the other.
type uneven struct {
	n     *node
	takes bool
	more  bool // newly called, otherwise no longer
}

// judgeBalance finds pairs of which one function newly takes (or no longer takes)
// what only another one gives back: what was taken before the change, or not, is
// given back after it, or not.
func (g *Graph) judgeBalance() {
	by := make(map[string][]uneven)
	for _, n := range g.nodes {
		if n.trivial || n.e.Kind != freeze.Function {
			continue
		}
		pre, post := takings(n.pre), takings(n.post)
		keys := make(map[string]bool)
		for k := range pre {
			keys[k] = true
		}
		for k := range post {
			keys[k] = true
		}
		for _, k := range sortedTrue(keys) {
			dt, dg := post[k][0]-pre[k][0], post[k][1]-pre[k][1]
			if dt*dg > 0 {
				continue // both more, or both less
			}
			if dt != 0 {
				by[k] = append(by[k], uneven{n, true, dt > 0})
			}
			// Giving back once more what it takes itself repairs a path of its own.
			if dg < 0 || dg > 0 && post[k][0] == 0 {
				by[k] = append(by[k], uneven{n, false, dg > 0})
			}
		}
	}
	for _, key := range sortedKeys(by) {
		list := by[key]
		for _, a := range list {
			for _, b := range list {
				if !a.takes || b.takes || a.n == b.n || !(a.n.both() || b.n.both()) || !related(a.n, b.n, key) {
					continue
				}
				g.link(a.n, b.n, WhyBalance, key)
				a.n.why = append(a.n.why, Reason{Entity: a.n.e, Code: CodeBalance, What: a.n.name(),
					Detail: "it " + verbOf(a.more, "takes", key) + ", and only " + b.n.name() + " " + verbOf(b.more, "gives back", key) + ": what exists when it goes live would be uneven"})
			}
		}
	}
}

func verbOf(more bool, verb, key string) string {
	if more {
		return "newly " + verb + " " + key
	}
	return "no longer " + verb + " " + key
}

// related says whether two functions can work on the same objects.
func related(a, b *node, key string) bool {
	return a.e.File == b.e.File || calls(a, b) || calls(b, a) || path.Dir(a.e.File) == path.Dir(b.e.File) && strings.HasSuffix(key, " ref") && !generic[firstWord(key)]
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}
