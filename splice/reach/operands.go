// SPDX-License-Identifier: Apache-2.0

package reach

import "github.com/upsplice/upsplice/splice/clex"

// pastes returns the rows of operands that a macro joins with ##, and how many
// parameters it has. toks begin with the macro's name. Parameters are 0.
func (b *builder) pastes(toks []clex.Token) (rows [][]piece, count int) {
	var params map[string]bool
	body := 1
	// A macro with parameters has the parenthesis right after its name; white
	// space is not kept, so that one without them can be taken for one. Then some
	// literal operand counts as any name.
	if len(toks) > 1 && toks[1].Is("(") {
		params = make(map[string]bool)
		for body = 2; body < len(toks) && !toks[body].Is(")"); body++ {
			params[toks[body].Text] = true
			if toks[body].Kind == clex.Ident || toks[body].Is("...") {
				count++
			}
		}
		params["__VA_ARGS__"] = true
		body++
	}
	operand := func(t clex.Token) (piece, bool) {
		switch {
		case t.Kind != clex.Ident && t.Kind != clex.Number:
			return 0, false
		case params[t.Text]:
			return 0, true
		}
		return piece(b.names.id(t.Text)), true
	}
	for i := body; i < len(toks); i++ {
		if !toks[i].Is("##") || i == body || i+1 == len(toks) {
			continue
		}
		first, ok := operand(toks[i-1])
		if !ok {
			continue
		}
		row := []piece{first}
		for ; i+1 < len(toks) && toks[i].Is("##"); i += 2 {
			p, ok := operand(toks[i+1])
			if !ok {
				break
			}
			row = append(row, p)
		}
		if len(row) > 1 {
			rows = append(rows, row)
		}
	}
	return rows, count
}
