// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
)

// fileRoles are the functions that a file's text gives a special part.
type fileRoles struct {
	threads map[string]bool // bodies of kernel threads
	boot    map[string]bool // called at boot, or when a module is loaded or removed
}

// Threads are the functions that a text passes to what makes kernel threads of
// them. They stay on a stack for as long as the thread lives.
func Threads(text string) []string { return sortedTrue(threadsOf(lex(text))) }

// makers are what makes a thread, with the index of the argument that is its body.
var makers = map[string]int{
	"kthread_run": 0, "kthread_create": 0, "kthread_create_on_node": 0, "kthread_create_on_cpu": 0, "kthread_run_on_cpu": 0, "__kthread_create_on_node": 0,
	"kernel_thread": 0, "user_mode_thread": 0, "create_io_thread": 0, "vhost_task_create": 0, "lwt_create": 0, "svc_create": -1,
}

func threadsOf(toks []token) map[string]bool {
	out := make(map[string]bool)
	for i := 0; i+1 < len(toks); i++ {
		at, ok := makers[toks[i].text]
		if !ok || at < 0 || !toks[i].ident() || !toks[i+1].is("(") {
			continue
		}
		if args := arguments(toks, i+1); at < len(args) {
			for _, t := range args[at] {
				if t.ident() && !word(t.text) {
					out[t.text] = true
				}
			}
		}
	}
	return out
}

// bootOf are the functions that a text names as those to be called at boot.
func bootOf(toks []token) map[string]bool {
	out := make(map[string]bool)
	for i := 0; i+2 < len(toks); i++ {
		name := toks[i].text
		if !toks[i].ident() || !toks[i+1].is("(") || !(strings.HasSuffix(name, "_initcall") || strings.HasSuffix(name, "_initcall_sync") || name == "module_init" || name == "module_exit" ||
			name == "__initcall" || name == "__setup" || name == "early_param" || name == "IOMMU_OF_DECLARE" || name == "TIMER_OF_DECLARE") {
			continue
		}
		args := arguments(toks, i+1)
		if n := len(args); n > 0 && len(args[n-1]) == 1 && args[n-1][0].ident() {
			out[args[n-1][0].text] = true
		}
	}
	return out
}

// roles reads what the unchanged text of a file says of its functions.
func (g *Graph) roles(file string) fileRoles {
	if r, ok := g.threads[file]; ok {
		return r
	}
	if g.threads == nil {
		g.threads = make(map[string]fileRoles)
	}
	r := fileRoles{threads: make(map[string]bool), boot: make(map[string]bool)}
	if g.opt.Text != nil && strings.HasSuffix(file, ".c") {
		text := g.opt.Text(file, false)
		// Lexing a file takes longer than looking for the words.
		if strings.Contains(text, "thread") || strings.Contains(text, "initcall") || strings.Contains(text, "module_") || strings.Contains(text, "__setup") || strings.Contains(text, "early_param") {
			toks := lex(text)
			r = fileRoles{threadsOf(toks), bootOf(toks)}
		}
	}
	for _, n := range g.scope.byFile[file] {
		for _, s := range []*side{n.pre, n.post} {
			if s != nil {
				for name := range bootOf(s.toks) {
					r.boot[name] = true
				}
			}
		}
	}
	g.threads[file] = r
	return r
}

// judgeRunning finds functions that some task is always in: the new code would
// never begin.
func (g *Graph) judgeRunning() {
	started := make(map[string]bool) // as far as changes show, of any file
	for _, n := range g.nodes {
		if n.pre != nil {
			for name := range threadsOf(n.pre.toks) {
				started[name] = true
			}
		}
	}
	for _, n := range g.nodes {
		if n.e.Kind != freeze.Function || n.pre == nil || n.trivial {
			continue
		}
		name := n.name()
		switch {
		case g.roles(n.e.File).threads[name], started[name] && threadLike(n.pre.toks):
			n.why = append(n.why, Reason{Entity: n.e, Code: CodeRunning, What: name, Detail: "it is the body of a kernel thread, which never leaves it"})
		case threadLike(n.pre.toks) && asksToStop(n.pre.toks):
			n.why = append(n.why, Reason{Entity: n.e, Code: CodeRunning, What: name, Detail: "it looks like the body of a kernel thread: it runs until it is told to stop"})
		case endless(n.pre.toks):
			n.why = append(n.why, Reason{Entity: n.e, Code: CodeRunning, What: name, Detail: "it has a loop without an end"})
		}
	}
}

// threadLike says whether a function has the prototype of a thread's body.
func threadLike(toks []token) bool {
	for i, t := range toks {
		if t.is("(") {
			args := arguments(toks, i)
			return len(args) == 1 && len(args[0]) >= 2 && args[0][0].text == "void" && args[0][1].is("*")
		}
		if t.is("{") {
			break
		}
	}
	return false
}

func asksToStop(toks []token) bool {
	for _, t := range toks {
		if t.text == "kthread_should_stop" || t.text == "kthread_should_park" || t.text == "kthread_freezable_should_stop" {
			return true
		}
	}
	return false
}

// endless says whether the text has a loop without a condition that nothing leaves.
func endless(toks []token) bool {
	for i := 0; i+4 < len(toks); i++ {
		open := -1
		switch {
		case toks[i].text == "for" && spell(toks[i+1:min(i+5, len(toks))]) == "( ; ; )":
			open = i + 5
		case toks[i].text == "while" && toks[i+1].is("(") && (toks[i+2].text == "1" || toks[i+2].text == "true") && toks[i+3].is(")"):
			open = i + 4
		}
		if open < 0 || open >= len(toks) || !toks[open].is("{") {
			continue
		}
		if !leaves(toks[open+1 : after(toks, open)]) {
			return true
		}
	}
	return false
}

// leaves says whether something in the body of a loop leaves the loop.
func leaves(body []token) bool {
	for i := 0; i < len(body); i++ {
		switch t := body[i]; {
		case !t.ident():
		case t.text == "return" || t.text == "goto" || t.text == "break":
			return true
		case strings.Contains(t.text, "exit") || strings.HasPrefix(t.text, "panic") || t.text == "BUG" || strings.HasSuffix(t.text, "longjmp"):
			return true
		case t.text == strings.ToUpper(t.text) && i+1 < len(body) && body[i+1].is("("):
			return true // a macro: it can hold anything
		case (t.text == "while" || t.text == "for" || t.text == "switch") && i+1 < len(body) && body[i+1].is("("):
			// A break in here leaves this one only.
			open := after(body, i+1)
			if open < len(body) && body[open].is("{") {
				end := after(body, open)
				for _, u := range body[open:end] {
					if u.text == "return" || u.text == "goto" {
						return true
					}
				}
				i = end - 1
			}
		}
	}
	return false
}

// judgeInit marks groups that do nothing live because they run at boot only, and
// gives those a reason that have such code with other code.
func (g *Graph) judgeInit(gr *Group) {
	var boot []Reason
	other := 0
	for _, e := range gr.Entities {
		n := g.index[e]
		switch {
		case !isCode(e) || n.trivial || e.Kind == freeze.Macro:
		case g.bootOnly(n):
			boot = append(boot, Reason{Entity: e, Code: CodeInit, What: n.name(), Detail: "it has run when the kernel booted or the module was loaded, and what it prepares is not there"})
		default:
			other++
		}
	}
	if len(boot) == 0 {
		return
	}
	if other == 0 {
		gr.Boot = true
		return
	}
	gr.Reasons = append(gr.Reasons, boot...)
}

// bootOnly says whether a function or variable is used at boot only.
func (g *Graph) bootOnly(n *node) bool {
	if n.e.Kind != freeze.Function && n.e.Kind != freeze.Data {
		return false
	}
	marked := func(s *side) bool {
		if s == nil {
			return false
		}
		for _, t := range s.toks {
			switch t.text {
			case "__init", "__exit", "__initdata", "__initconst", "__exitdata", "__setup", "early_param":
				return true
			case "{", "=":
				return false
			}
		}
		return false
	}
	if n.pre != nil && n.post != nil {
		if marked(n.pre) && marked(n.post) {
			return true
		}
	} else if marked(n.pre) || marked(n.post) {
		return true
	}
	return n.e.Kind == freeze.Function && g.roles(n.e.File).boot[n.name()]
}
