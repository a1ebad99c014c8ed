// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

// briefType is a type that takes its new form.
type briefType struct {
	typ   *node
	files []string
}

// findBrief finds types whose objects live on the stack only, and within the call
// that made them. A type is taken if its new form is needed, and if nothing else
// speaks against the group of all its users.
func (g *Graph) findBrief() {
	if g.opt.Text == nil || g.opt.Mentions == nil {
		return
	}
	wanted := make(map[*node]bool)
	for _, n := range g.nodes {
		for _, w := range n.need {
			wanted[w.typ] = true
		}
	}
	var list []*node
	var tags []string
	for _, t := range g.nodes {
		if wanted[t] && t.typ != nil && !t.typ.enum && structTag(t) != "" {
			list = append(list, t)
			tags = append(tags, structTag(t))
		}
	}
	if len(list) == 0 {
		return
	}
	mentions := g.opt.Mentions(tags)
	for _, t := range list {
		tag := structTag(t)
		files := slices.Clone(mentions[tag])
		if t.e.Local {
			files = []string{t.e.File}
		}
		slices.Sort(files)
		files = slices.Compact(files)
		i := slices.Index(files, t.e.File)
		if i < 0 {
			continue
		}
		files[0], files[i] = files[i], files[0] // its own speaks against it most often
		if !g.brief(tag, files) {
			continue
		}
		g.take(t, tag, files)
	}
}

// structTag is the tag of a struct or union, "" if there are other names for it.
func structTag(t *node) string {
	for _, s := range []*side{t.pre, t.post} {
		for _, k := range s.toks {
			if k.text == "typedef" {
				return ""
			}
		}
		brace := aggregateBrace(plain(s.toks))
		if head := plain(s.toks); brace < 2 || !head[brace-1].ident() || head[brace-2].text != "struct" && head[brace-2].text != "union" {
			return ""
		}
	}
	head := plain(t.post.toks)
	return head[aggregateBrace(head)-1].text
}

// take joins all changes that mention the type, unless that would defer them.
func (g *Graph) take(t *node, tag string, files []string) {
	users := []*node{t}
	for _, x := range g.nodes {
		if x != t && !x.trivial && (x.pre != nil && x.pre.refs[ref{tag, tagged}] || x.post != nil && x.post.refs[ref{tag, tagged}]) && slices.Contains(files, x.e.File) {
			users = append(users, x)
		}
		for _, w := range x.need {
			if w.typ == t && !slices.Contains(users, x) {
				users = append(users, x)
			}
		}
	}
	roots := make(map[int]bool)
	for _, x := range users {
		roots[g.root(x.i)] = true
	}
	trial := &Group{}
	for _, b := range append(slices.Clone(g.taken), briefType{typ: t}) {
		trial.Types = append(trial.Types, b.typ.e)
	}
	for _, n := range g.nodes {
		if roots[g.root(n.i)] {
			trial.Entities = append(trial.Entities, n.e)
		}
	}
	g.reasons(trial)
	if len(trial.Reasons) > 0 || trial.Boot {
		return
	}
	for _, x := range users[1:] {
		g.link(x, t, WhyShort, tag)
	}
	g.taken = append(g.taken, briefType{t, files})
	// Its new form needs what it mentions.
	g.linkMentions(t)
}

// brief says whether no text lets an object of the type live longer than the call
// that made it, or be seen by another task.
func (g *Graph) brief(tag string, files []string) bool {
	c := &briefCheck{tag: tag, takers: make(map[string]bool), macros: make(map[string][][]token), ok: true}
	for _, c.bodies = range []bool{false, true} {
		for _, file := range files {
			for _, post := range []bool{false, true} {
				if !c.ok {
					return false
				}
				if text := g.opt.Text(file, post); strings.Contains(text, tag) {
					clex.Split(text, c)
				}
			}
		}
	}
	return c.ok
}

// briefCheck is a clex.Sink that looks at all mentions of a type.
type briefCheck struct {
	tag    string
	takers map[string]bool      // functions that take a pointer to it
	macros map[string][][]token // with parameters, of the files that mention the type
	bodies bool                 // those of functions are judged: all takers are known
	ok     bool
	depth  int
	whys   string // the first mention that speaks against it
}

func (c *briefCheck) no(why string) {
	if c.ok {
		c.ok, c.whys = false, why
	}
}

func (c *briefCheck) Directive([]clex.Token, bool)                 {}
func (c *briefCheck) Include([]clex.Token, bool, []clex.Condition) {}
func (c *briefCheck) Stray([]clex.Token)                           {}

func (c *briefCheck) Macro(_ bool, toks []clex.Token, _ []clex.Condition) {
	for _, t := range toks {
		if t.Text == c.tag {
			c.no("a macro mentions it")
		}
	}
	line := append([]token{{text: "#", kind: clex.Punct, first: true}, {text: "define", kind: clex.Ident}}, merge(toks)...)
	if _, params, _ := macroHead(line); params != nil && !c.bodies {
		c.macros[line[2].text] = append(c.macros[line[2].text], line)
	}
}

func (c *briefCheck) Entity(items []clex.Token, _ []clex.Condition, open bool) {
	if !slices.ContainsFunc(items, func(t clex.Token) bool { return t.Text == c.tag }) {
		return
	}
	toks := merge(clex.Code(items))
	if open {
		c.no("it stands in what cannot be cut")
		return
	}
	if !c.bodies {
		c.findTakers(toks)
	}
	brace := aggregateBrace(toks)
	switch {
	case brace >= 2 && toks[brace-1].text == c.tag && (toks[brace-2].text == "struct" || toks[brace-2].text == "union"):
		if brace != 2 || after(toks, brace) < len(toks) && !toks[after(toks, brace)].is(";") && !decoration(toks[after(toks, brace)].text) {
			c.no("a variable of it is defined with it")
		}
		c.definition(toks[brace:])
	case len(toks) == 3 && toks[2].is(";"):
		// struct tag;
	default:
		c.item(toks)
	}
}

// linked are types that make an object part of a list or a queue, or let others
// wait for it.
var linked = set("list_head", "hlist_node", "hlist_bl_node", "hlist_nulls_node", "llist_node", "rb_node", "plist_node", "wait_queue_entry", "wait_queue_entry_t",
	"wait_queue_head_t", "wait_queue_head", "swait_queue_head", "work_struct", "delayed_work", "rcu_head", "callback_head", "timer_list", "hrtimer", "completion",
	"kref", "refcount_t", "kobject", "device", "mutex", "spinlock_t", "raw_spinlock_t", "task_work", "irq_work", "kthread_work", "rhash_head", "notifier_block")

func (c *briefCheck) definition(toks []token) {
	for _, t := range toks {
		if linked[t.text] {
			c.no("its member " + t.text + " links it with others")
		}
	}
}

// findTakers notes the functions, and pointers to functions, that have a pointer to
// the type among their parameters.
func (c *briefCheck) findTakers(toks []token) {
	var open []int
	for i, t := range toks {
		switch {
		case t.is("("):
			open = append(open, i)
		case t.is(")") && len(open) > 0:
			open = open[:len(open)-1]
		case t.text == c.tag && len(open) > 0 && i+1 < len(toks) && toks[i+1].is("*"):
			at := open[len(open)-1]
			switch {
			case at > 0 && toks[at-1].ident() && !word(toks[at-1].text):
				c.takers[toks[at-1].text] = true
			case at > 2 && toks[at-1].is(")") && toks[at-2].ident():
				c.takers[toks[at-2].text] = true // (*name)(
			}
		}
	}
}

// item judges anything but the definition of the type.
func (c *briefCheck) item(toks []token) {
	body := len(toks)
	for i, t := range toks {
		if t.is("{") {
			body = i
			break
		}
	}
	depth := 0
	function := body < len(toks) && aggregateBrace(toks) < 0
	if function != c.bodies {
		return
	}
	vars := variables(toks)
	for i, t := range toks {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		}
		if t.text != c.tag || !t.ident() {
			continue
		}
		if i == 0 || toks[i-1].text != "struct" && toks[i-1].text != "union" {
			c.no("its tag has another meaning in " + spell(toks[:min(4, len(toks))]))
			return
		}
		pointer := i+1 < len(toks) && toks[i+1].is("*")
		if function && i > body {
			c.mention(toks, i, pointer, vars)
			continue
		}
		// A parameter; what is declared otherwise is a variable, a member or a result.
		if depth == 0 || !pointer || i+2 < len(toks) && toks[i+2].is("*") {
			c.no("it stands in " + spell(toks[:min(6, len(toks))]))
			return
		}
		if call, _ := callee(toks, i); call == strings.ToUpper(call) {
			c.no("the macro " + call + " gets it")
			return
		}
		if function && i+2 < len(toks) && toks[i+2].ident() && !word(toks[i+2].text) && vars[toks[i+2].text] != c.tag {
			c.no("a parameter of " + spell(toks[:min(6, len(toks))]) + " is not understood")
		}
	}
	if function {
		c.body(toks, body, vars)
	} else if body < len(toks) && aggregateBrace(toks) < 0 {
		c.no("data mentions it")
	}
}

// mention judges one in the body of a function: it has to declare a variable.
func (c *briefCheck) mention(toks []token, i int, pointer bool, vars map[string]string) {
	k := i - 2
	for k >= 0 && toks[k].text == "const" {
		k--
	}
	begins := k >= 0 && (toks[k].is(";") || toks[k].is("{") || toks[k].is("}"))
	n := i + 1
	if pointer {
		n++
	}
	if !begins || n >= len(toks) || !toks[n].ident() {
		c.no("it is mentioned other than by a local variable")
		return
	}
	if n+1 < len(toks) && toks[n+1].is("[") && pointer {
		c.no("an array of pointers to it")
	}
	// All that the statement declares has to be known as being of the type.
	for k, first := n, true; k < len(toks) && !toks[k].is(";"); k++ {
		switch {
		case toks[k].is("(") || toks[k].is("[") || toks[k].is("{"):
			k = after(toks, k) - 1
		case first || toks[k].is(","):
			for !first && k+1 < len(toks) && (toks[k+1].is("*") || toks[k+1].is(",")) {
				k++
			}
			if !first {
				k++
			}
			if first = false; k >= len(toks) || vars[toks[k].text] != c.tag {
				c.no("a declaration is not understood: " + spell(toks[i:min(len(toks), i+8)]))
				return
			}
		}
	}
}

// body judges what a function does with its variables of the type.
func (c *briefCheck) body(toks []token, brace int, vars map[string]string) {
	for i := 1; i < len(toks); i++ {
		if tag, ok := vars[toks[i].text]; !ok || tag != c.tag || !toks[i].ident() || toks[i-1].is("->") || toks[i-1].is(".") {
			continue
		}
		if i < brace || declares(toks, i, c.tag) {
			if !c.value(toks, i, vars) {
				c.no(toks[i].text + " begins with a value from elsewhere")
			}
			continue
		}
		if !c.use(toks, i, vars) {
			c.no("a use of " + toks[i].text + " in " + spell(toks[max(0, i-4):min(len(toks), i+5)]))
			return
		}
	}
}

// declares says whether the variable at i is declared there.
func declares(toks []token, i int, tag string) bool {
	k := i - 1
	for k > 0 && (toks[k].is("*") || toks[k].text == "const") {
		k--
	}
	return toks[k].text == tag
}

// value judges what the variable at i is set to.
func (c *briefCheck) value(toks []token, i int, vars map[string]string) bool {
	if i+2 >= len(toks) || !toks[i+1].is("=") {
		return true
	}
	k := i + 2
	if toks[k].is("{") {
		return true // its members
	}
	if toks[k].is("&") {
		k++
		return k+1 < len(toks) && vars[toks[k].text] == c.tag && (toks[k+1].is(";") || toks[k+1].is(","))
	}
	// A parameter without a type, as callbacks have: whoever made the object had to
	// name the type. Or nothing.
	_, known := vars[toks[k].text]
	return k+1 < len(toks) && (known || toks[k].text == "NULL") && (toks[k+1].is(";") || toks[k+1].is(","))
}

// use judges one mention of a variable.
func (c *briefCheck) use(toks []token, i int, vars map[string]string) bool {
	prev, next := toks[i-1], token{}
	if i+1 < len(toks) {
		next = toks[i+1]
	}
	address := prev.is("&") && !(toks[i-2].ident() && !word(toks[i-2].text) || toks[i-2].is(")"))
	switch {
	case next.is("->") || next.is("."):
		if !address {
			return true
		}
		// The address of a member: of another object, if a pointer leads there.
		for k := i + 3; k+1 < len(toks) && (toks[k].is("->") || toks[k].is(".") || toks[k].is("[")); {
			if toks[k].is("->") {
				return true
			}
			if toks[k].is("[") {
				k = after(toks, k)
			} else {
				k += 2
			}
		}
		return false
	case next.is("="):
		return c.value(toks, i, vars) && (prev.is(";") || prev.is("{") || prev.is("}") || prev.is(")") || prev.is("*"))
	}
	k := i
	if address {
		k--
	}
	if toks[k-1].is("=") {
		// From one variable to another.
		return k > 2 && vars[toks[k-2].text] == c.tag && !toks[k-3].is("->") && !toks[k-3].is(".")
	}
	if !address && (toks[k-1].is("!") || next.is("==") || next.is("!=") || next.is("&&") || next.is("||")) {
		return true
	}
	call, bare := callee(toks, k)
	switch {
	case !bare:
		return false
	case call == "if" || call == "while" || call == "memset" || call == "likely" || call == "unlikely" || call == "WARN_ON" || call == "WARN_ON_ONCE" || call == "BUG_ON":
		return true
	case call == "sizeof":
		return c.sized(toks, k)
	}
	if !next.is(",") && !next.is(")") {
		return false
	}
	return c.takers[call] || c.expanded(toks, k, call)
}

// maxExpansions bounds macros within macros.
const maxExpansions = 4

// expanded judges what a macro, in each of its definitions, does with the argument
// at i.
func (c *briefCheck) expanded(toks []token, i int, call string) bool {
	if len(c.macros[call]) == 0 || c.depth >= maxExpansions {
		return false
	}
	c.depth++
	defer func() { c.depth-- }()
	open := i
	for depth := 0; open > 0; open-- {
		if toks[open].is(")") {
			depth++
		} else if toks[open].is("(") {
			if depth--; depth < 0 {
				break
			}
		}
	}
	nth := 0
	for _, a := range arguments(toks, open) {
		if len(a) > 0 && a[len(a)-1].pos >= toks[i].pos {
			break
		}
		nth++
	}
	for _, line := range c.macros[call] {
		if !c.expansion(line, nth) {
			return false
		}
	}
	return true
}

// expansion judges what a macro does with its nth argument.
func (c *briefCheck) expansion(line []token, nth int) bool {
	_, params, variadic := macroHead(line)
	if variadic || nth >= len(params) {
		return false
	}
	// The parentheses around a parameter are dropped, and there is room before it.
	semicolon := token{text: ";", kind: clex.Punct}
	body := []token{semicolon, semicolon, semicolon, semicolon}
	rest := line[after(line, 3):]
	for k := 0; k < len(rest); k++ {
		if rest[k].is("(") && k+2 < len(rest) && rest[k+1].text == params[nth] && rest[k+2].is(")") && (k == 0 || !rest[k-1].ident()) {
			body = append(body, rest[k+1])
			k += 2
			continue
		}
		body = append(body, rest[k])
	}
	for k := range body {
		if body[k].text == params[nth] && body[k].ident() && !c.use(body, k, map[string]string{params[nth]: c.tag}) {
			return false
		}
	}
	return true
}

// sized judges sizeof: memory of that size is the beginning of a long life.
func (c *briefCheck) sized(toks []token, i int) bool {
	for i > 0 && toks[i].text != "sizeof" {
		i--
	}
	call, _ := callee(toks, i)
	return call == "memset"
}

// callee is the name in front of the parentheses around i; bare says that the
// token begins an argument.
func callee(toks []token, i int) (name string, bare bool) {
	bare = toks[i-1].is("(") || toks[i-1].is(",") || toks[i-1].is("*") && toks[i-2].is("(")
	depth := 0
	for k := i - 1; k > 0; k-- {
		switch {
		case toks[k].is(")") || toks[k].is("]") || toks[k].is("}"):
			depth++
		case toks[k].is("(") && depth == 0:
			if !toks[k-1].ident() && k > 2 && toks[k-1].is(")") && toks[k-2].ident() {
				return toks[k-2].text, bare // (*name)(
			}
			return toks[k-1].text, bare
		case toks[k].is("(") || toks[k].is("[") || toks[k].is("{"):
			if depth--; depth < 0 {
				return "", false
			}
		case toks[k].is(";") && depth == 0:
			return "", false
		}
	}
	return "", false
}

// giveBrief puts the types into their groups.
func (g *Graph) giveBrief() {
	for _, b := range g.taken {
		gr := g.byRoot[g.root(b.typ.i)]
		gr.Types = append(gr.Types, b.typ.e)
		gr.Users = append(gr.Users, b.files...)
		slices.Sort(gr.Users)
		gr.Users = slices.Compact(gr.Users)
	}
}
