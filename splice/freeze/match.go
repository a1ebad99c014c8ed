// SPDX-License-Identifier: Apache-2.0

package freeze

import "slices"

// maxTable bounds the memory of match: cells of its table, of 4 bytes.
const maxTable = 16 << 20

// match finds the items of one list in the other, in order: pairs of indices.
func match(pre, post []*item) (pairs [][2]int) {
	once := func(list []*item) map[string]int {
		n := make(map[string]int)
		for _, i := range list {
			n[i.key]++
		}
		return n
	}
	inPre, inPost := once(pre), once(post)
	sure := func(a, b *item) bool {
		return a.key == b.key && (inPre[a.key] == 1 && inPost[a.key] == 1 || a.text() == b.text())
	}
	first := 0
	for first < len(pre) && first < len(post) && sure(pre[first], post[first]) {
		pairs = append(pairs, [2]int{first, first})
		first++
	}
	m, n := len(pre), len(post)
	var tail [][2]int
	for m > first && n > first && sure(pre[m-1], post[n-1]) {
		m, n = m-1, n-1
		tail = append(tail, [2]int{m, n})
	}
	slices.Reverse(tail)
	a, b := pre[first:m], post[first:n]
	var middle [][2]int
	if len(a)*len(b) > maxTable {
		middle = rising(a, b, inPre, inPost)
	} else {
		middle = common(a, b)
	}
	for _, p := range middle {
		pairs = append(pairs, [2]int{p[0] + first, p[1] + first})
	}
	return append(pairs, tail...)
}

// common is the longest common subsequence, where items that are like each other
// count more.
func common(a, b []*item) (pairs [][2]int) {
	if len(a) == 0 || len(b) == 0 {
		return nil
	}
	w := len(b) + 1
	best := make([]int32, (len(a)+1)*w)
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			n := max(best[(i+1)*w+j], best[i*w+j+1])
			if a[i].key == b[j].key {
				n = max(n, best[(i+1)*w+j+1]+likeness(a[i], b[j]))
			}
			best[i*w+j] = n
		}
	}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i].key == b[j].key && best[i*w+j] == best[(i+1)*w+j+1]+likeness(a[i], b[j]):
			pairs = append(pairs, [2]int{i, j})
			i, j = i+1, j+1
		case best[(i+1)*w+j] >= best[i*w+j+1]:
			i++
		default:
			j++
		}
	}
	return pairs
}

// maxLike bounds what one pair counts.
const maxLike = 16

// likeness of two items with the same key, from 1.
func likeness(a, b *item) int32 {
	n := int32(1)
	if a.text() == b.text() {
		n = maxLike
	}
	if a.branches == nil {
		return n
	}
	for _, d := range a.defs {
		if n < maxLike && slices.Contains(b.defs, d) {
			n++
		}
	}
	return n
}

// rising pairs the items that both lists have once, as many as are in the same
// order: for lists that are too long for the table.
func rising(a, b []*item, inA, inB map[string]int) (pairs [][2]int) {
	at := make(map[string]int)
	for j, i := range b {
		at[i.key] = j
	}
	type step struct {
		pair   [2]int
		before int
	}
	var steps []step
	var ends []int // of the best row of each length: number of its last step
	for i, it := range a {
		j, ok := at[it.key]
		if !ok || inA[it.key] != 1 || inB[it.key] != 1 {
			continue
		}
		n, _ := slices.BinarySearchFunc(ends, j, func(s, j int) int { return steps[s].pair[1] - j })
		before := -1
		if n > 0 {
			before = ends[n-1]
		}
		steps = append(steps, step{[2]int{i, j}, before})
		ends = append(ends[:n], append([]int{len(steps) - 1}, ends[min(n+1, len(ends)):]...)...)
	}
	if len(ends) == 0 {
		return nil
	}
	for s := ends[len(ends)-1]; s >= 0; s = steps[s].before {
		pairs = append(pairs, steps[s].pair)
	}
	slices.Reverse(pairs)
	return pairs
}
