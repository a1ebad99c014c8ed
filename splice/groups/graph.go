// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/freeze"
)

// Graph keeps the edges, so that the caller can join more once it knows more.
type Graph struct {
	opt    Options
	nodes  []*node
	index  map[*freeze.Entity]*node
	scope  *scope
	edges  []Edge
	seen   map[[2]int]bool
	parent []int
	hubs   map[hub]*node // the first user of each

	groups  []*Group // of the present edges; nil if they are to be made
	byRoot  map[int]*Group
	taken   []briefType
	threads map[string]fileRoles
}

// New finds the edges between the changes of an update.
func New(list []*freeze.Entity, opt Options) *Graph {
	g := &Graph{opt: opt, index: make(map[*freeze.Entity]*node, len(list)), seen: make(map[[2]int]bool), hubs: make(map[hub]*node)}
	for i, e := range list {
		n := newNode(i, e)
		g.nodes = append(g.nodes, n)
		g.index[e] = n
		g.parent = append(g.parent, i)
	}
	for _, n := range g.nodes {
		n.typ = defineType(n)
	}
	g.scope = newScope(g.nodes)
	g.linkGiven()
	g.linkReferences()
	g.linkMoved()
	g.linkInvocations()
	g.linkDeclarations()
	g.linkFiles()
	g.linkMembers()
	g.linkPointers()
	g.linkConstants()
	g.judgeData()
	g.judgeLocks()
	g.judgeBalance()
	g.judgeRunning()
	g.findBrief()
	return g
}

func (g *Graph) root(i int) int {
	for g.parent[i] != i {
		g.parent[i] = g.parent[g.parent[i]]
		i = g.parent[i]
	}
	return i
}

func (g *Graph) link(from, to *node, why Why, name string) {
	if from == to || g.seen[[2]int{from.i, to.i}] {
		return
	}
	g.seen[[2]int{from.i, to.i}] = true
	g.edges = append(g.edges, Edge{From: from.e, To: to.e, Why: why, Name: name})
	a, b := g.root(from.i), g.root(to.i)
	g.parent[max(a, b)] = min(a, b)
	g.groups = nil
}

// hub is a member or constant of a type that both kernels have.
type hub struct {
	typ  *node
	name string
}

// linkUser joins the users of one member or constant. The type is not in their
// group: it keeps its old form, and users of its other members are not concerned.
func (g *Graph) linkUser(x, t *node, why Why, name string) {
	h := hub{t, name}
	if first := g.hubs[h]; first != nil {
		g.link(x, first, why, t.name()+"."+name)
		return
	}
	g.hubs[h] = x
}

// Join puts two entities into one group. The name says what joins them.
func (g *Graph) Join(from, to *freeze.Entity, name string) {
	a, b := g.index[from], g.index[to]
	if a != nil && b != nil {
		g.link(a, b, WhyCaller, name)
	}
}

// Edges are all edges, in a stable order.
func (g *Graph) Edges() []Edge { return g.edges }

// Groups are all groups, in the order of their first entities.
func (g *Graph) Groups() []*Group {
	if g.groups != nil {
		return g.groups
	}
	g.byRoot = make(map[int]*Group)
	g.groups = []*Group{}
	for _, n := range g.nodes {
		r := g.root(n.i)
		gr := g.byRoot[r]
		if gr == nil {
			gr = &Group{}
			g.byRoot[r] = gr
			g.groups = append(g.groups, gr)
		}
		gr.Entities = append(gr.Entities, n.e)
	}
	g.giveBrief()
	for _, gr := range g.groups {
		g.reasons(gr)
	}
	return g.groups
}

// Group is the group of an entity, nil if the graph does not have it.
func (g *Graph) Group(e *freeze.Entity) *Group {
	n := g.index[e]
	if n == nil {
		return nil
	}
	g.Groups()
	return g.byRoot[g.root(n.i)]
}

// Why is the shortest way of edges between two entities of a group, nil if they are
// in different ones.
func (g *Graph) Why(from, to *freeze.Entity) []Edge {
	if g.index[from] == nil || g.index[to] == nil || from == to {
		return nil
	}
	next := make(map[*freeze.Entity][]int)
	for i, e := range g.edges {
		next[e.From] = append(next[e.From], i)
		next[e.To] = append(next[e.To], i)
	}
	by := map[*freeze.Entity]int{from: -1}
	for queue := []*freeze.Entity{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == to {
			break
		}
		for _, i := range next[at] {
			other := g.edges[i].To
			if other == at {
				other = g.edges[i].From
			}
			if _, ok := by[other]; !ok {
				by[other] = i
				queue = append(queue, other)
			}
		}
	}
	if _, ok := by[to]; !ok {
		return nil
	}
	var way []Edge
	for at := to; at != from; {
		e := g.edges[by[at]]
		way = append(way, e)
		if e.From == at {
			at = e.To
		} else {
			at = e.From
		}
	}
	slices.Reverse(way)
	return way
}

// reasons gathers why a group is deferred.
func (g *Graph) reasons(gr *Group) {
	taken := make(map[*freeze.Entity]bool)
	for _, e := range gr.Types {
		taken[e] = true
	}
	for _, e := range gr.Entities {
		n := g.index[e]
		gr.Reasons = append(gr.Reasons, n.why...)
		for _, w := range n.need {
			if !taken[w.typ.e] {
				gr.Reasons = append(gr.Reasons, w.reason(n))
			}
		}
	}
	g.judgeInit(gr)
	slices.SortStableFunc(gr.Reasons, func(a, b Reason) int {
		return strings.Compare(a.Code+"\x00"+a.What+"\x00"+a.Detail, b.Code+"\x00"+b.What+"\x00"+b.Detail)
	})
	gr.Reasons = slices.Compact(gr.Reasons)
}
