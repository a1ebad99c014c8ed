// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"maps"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
	"github.com/upsplice/upsplice/splice/freeze"
)

// linkReferences joins what newly refers, or no longer refers, to what changed, and
// all users of what has another signature.
func (g *Graph) linkReferences() {
	for _, x := range g.nodes {
		// The old form of a type stays, whatever the new one would mention.
		if !x.trivial && x.e.Kind != freeze.Include && x.typ == nil {
			g.linkMentions(x)
		}
	}
}

func (g *Graph) linkMentions(x *node) {
	for _, r := range x.mentions() {
		var pre, post []*node
		if x.pre != nil && x.pre.refs[r] {
			pre = g.scope.resolve(x.e.File, r, false)
		}
		if x.post != nil && x.post.refs[r] {
			post = g.scope.resolve(x.e.File, r, true)
		}
		g.linkReference(x, r, pre, post)
	}
}

// linkGiven joins what the cutter of the trees knows to be old or new together.
func (g *Graph) linkGiven() {
	for _, x := range g.nodes {
		for _, e := range x.e.With {
			y := g.index[e]
			if y == nil {
				continue
			}
			why := WhyMoved
			if x.e.Kind == freeze.Declaration || y.e.Kind == freeze.Declaration {
				why = WhyPrototype
			}
			g.link(x, y, why, x.name())
		}
	}
}

// mentions are the names of both texts, sorted.
func (n *node) mentions() []ref {
	all := make(map[ref]bool)
	for _, s := range []*side{n.pre, n.post} {
		if s != nil {
			maps.Copy(all, s.refs)
		}
	}
	list := slices.Collect(maps.Keys(all))
	slices.SortFunc(list, func(a, b ref) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return int(a.class) - int(b.class)
	})
	return list
}

func (g *Graph) linkReference(x *node, r ref, pre, post []*node) {
	inPre := x.pre != nil && x.pre.refs[r]
	inPost := x.post != nil && x.post.refs[r]
	if inPre && inPost && !slices.Equal(pre, post) {
		// The same name means something else in the new text.
		if len(pre) > 0 && len(post) > 0 && signature(pre[0].e, pre[0].pre) == signature(post[0].e, post[0].post) {
			pre, post = nil, nil
		}
		for _, y := range append(slices.Clone(pre), post...) {
			if !y.both() && !harmless(y, r) && x.changedUse(r.name) {
				g.link(x, y, WhySignature, r.name)
			}
		}
		return
	}
	if inPre && inPost {
		for _, y := range post {
			if !y.both() || y.trivial || y.typ != nil || r.class == membered || signature(y.e, y.pre) == signature(y.e, y.post) {
				continue
			}
			// Code that runs calls what has a symbol as it was compiled. What is
			// expanded where it is used is compiled again with its user.
			if !expanded(y) || x.changedUse(r.name) {
				g.link(x, y, WhySignature, r.name)
			}
		}
		return
	}
	why, list := WhyNew, post
	if inPre {
		why, list = WhyDropped, pre
	}
	for _, y := range list {
		if harmless(y, r) {
			continue
		}
		g.link(x, y, why, r.name)
	}
}

// expanded says whether an entity becomes part of the code that uses it.
func expanded(y *node) bool {
	if y.e.Kind == freeze.Macro {
		return true
	}
	if y.e.Kind != freeze.Function {
		return false
	}
	if strings.HasSuffix(y.e.File, ".h") {
		return true
	}
	for _, t := range y.pre.toks {
		if t.is("{") {
			break
		}
		if t.text == "inline" || t.text == "__always_inline" {
			return true
		}
	}
	return false
}

// harmless says whether a reference needs nothing of how an entity changed.
func harmless(y *node, r ref) bool {
	if y.trivial {
		return true
	}
	switch y.e.Kind {
	case freeze.Include:
		return true
	case freeze.Type:
		// Types that both kernels have keep their old form: what needs the new one is
		// found by its members and constants. Typedefs have none.
		return y.both() && y.typ != nil
	case freeze.Declaration:
		return y.both() && signature(y.e, y.pre) == signature(y.e, y.post)
	case freeze.Invocation:
		// Exports, parameters and descriptions of something else.
		return !defining(y) && (r.class != ordinary || !exports(y))
	}
	return false
}

// head is the macro of an invocation.
func (n *node) head() string {
	for _, s := range []*side{n.post, n.pre} {
		if s != nil {
			for _, t := range plain(s.toks) {
				if t.ident() && t.text != "static" && t.text != "extern" {
					return t.text
				}
			}
		}
	}
	return ""
}

func exports(n *node) bool { return strings.HasPrefix(n.head(), "EXPORT_") }

// defining says whether an invocation defines what it is given the name of.
func defining(n *node) bool {
	h := strings.TrimLeft(n.head(), "_")
	if strings.HasPrefix(h, "EXPORT_") || strings.HasPrefix(h, "MODULE_") || strings.HasPrefix(h, "module_") || strings.HasSuffix(h, "initcall") {
		return false
	}
	switch h {
	case "ALLOW_ERROR_INJECTION", "NOKPROBE_SYMBOL", "early_param", "setup", "BTF_ID", "BTF_ID_FLAGS", "param_check":
		return false
	}
	return true
}

// linkMoved joins what is gone in one place and new in another.
func (g *Graph) linkMoved() {
	for _, x := range g.nodes {
		if x.post != nil || !movable(x) {
			continue
		}
		for _, name := range x.e.Names {
			for _, y := range g.scope.byName[name] {
				if y.pre != nil || !movable(y) || !slices.Contains(y.e.Names, name) || y.e.File != x.e.File && x.e.Local && y.e.Local && !alike(x.pre, y.post) {
					continue
				}
				if y.e.File != x.e.File && !visible(x, y.e.File) && !visible(y, x.e.File) {
					continue
				}
				g.link(x, y, WhyMoved, name)
				if x.e.Kind == freeze.Data && y.e.Kind == freeze.Data {
					x.why = append(x.why, Reason{Entity: x.e, Code: CodeData, What: name,
						Detail: "the variable moves to " + y.e.File + ": its value would not move with it"})
				}
			}
		}
	}
}

func movable(n *node) bool {
	switch n.e.Kind {
	case freeze.Function, freeze.Data, freeze.Macro, freeze.Type:
		return true
	}
	return false
}

// alike compares texts apart from storage.
func alike(a, b *side) bool { return same(bareType(a.toks), bareType(b.toks)) }

// linkInvocations joins a macro at the top level with what it names.
func (g *Graph) linkInvocations() {
	for _, x := range g.nodes {
		if x.e.Kind != freeze.Invocation || x.trivial {
			continue
		}
		for _, name := range x.e.Names {
			for _, y := range g.scope.byName[name] {
				if y != x && !y.trivial && y.e.Kind != freeze.Type && y.e.Kind != freeze.Declaration && (y.e.File == x.e.File || !y.e.Local && exports(x) && y.e.Kind != freeze.Invocation && visible(y, x.e.File)) {
					g.link(x, y, WhyInvoked, name)
				}
			}
			// DEFINE_SHOW_ATTRIBUTE(name) wants name_show, DEVICE_ATTR_RO too.
			if len(name) < 3 || !defining(x) {
				continue
			}
			for _, y := range g.scope.byFile[x.e.File] {
				if y == x || y.both() || y.e.Kind != freeze.Function && y.e.Kind != freeze.Data {
					continue
				}
				for _, def := range y.e.Names {
					if strings.HasPrefix(def, name+"_") || strings.HasSuffix(def, "_"+name) {
						g.link(x, y, WhyInvoked, def)
					}
				}
			}
		}
	}
}

// linkDeclarations joins prototypes with their definitions.
func (g *Graph) linkDeclarations() {
	for _, x := range g.nodes {
		if x.e.Kind != freeze.Declaration || x.trivial {
			continue
		}
		for _, name := range x.e.Names {
			for _, y := range g.scope.byName[name] {
				if y == x || y.trivial || y.e.File != x.e.File && (y.e.Local || !visible(x, y.e.File)) {
					continue
				}
				switch y.e.Kind {
				case freeze.Function, freeze.Data, freeze.Whole, freeze.Macro:
				case freeze.Declaration:
					if y.both() && x.both() {
						continue
					}
				case freeze.Invocation:
					if !defining(y) {
						continue
					}
				default:
					continue
				}
				g.link(x, y, WhyPrototype, name)
			}
		}
	}
}

// linkFiles joins includes with the files that are new or gone.
func (g *Graph) linkFiles() {
	whole := make(map[string][]*node)
	for _, n := range g.nodes {
		if n.e.Kind == freeze.Whole && !n.both() {
			base := n.e.File[strings.LastIndexByte(n.e.File, '/')+1:]
			whole[base] = append(whole[base], n)
		}
	}
	if len(whole) == 0 {
		return
	}
	for _, x := range g.nodes {
		for _, s := range []*side{x.pre, x.post} {
			if s == nil || x.e.Kind != freeze.Include && x.e.Kind != freeze.Whole {
				continue
			}
			for _, name := range includes(s.toks) {
				for _, y := range whole[name[strings.LastIndexByte(name, '/')+1:]] {
					if y.side(s == x.post) != nil && (strings.HasSuffix(y.e.File, "/"+name) || y.e.File == name || strings.Contains(name, "../")) {
						g.link(x, y, WhyFile, name)
					}
				}
			}
		}
	}
}

// includes are the names in #include lines.
func includes(toks []token) []string {
	var names []string
	for i := 0; i+2 < len(toks); i++ {
		if !toks[i].first || !toks[i].is("#") || toks[i+1].text != "include" {
			continue
		}
		if toks[i+2].kind == clex.String {
			names = append(names, strings.Trim(toks[i+2].text, `"`))
			continue
		}
		var b strings.Builder
		for k := i + 3; k < len(toks) && !toks[k].first && !toks[k].is(">"); k++ {
			b.WriteString(toks[k].text)
		}
		names = append(names, b.String())
	}
	return names
}
