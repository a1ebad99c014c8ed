// SPDX-License-Identifier: Apache-2.0

package groups

import "github.com/upsplice/upsplice/splice/clex"

// defined lists what other files can mean of a file that is new or gone as a whole.
// source says that its macros, types and static items are its own.
func defined(text string, source bool) []string {
	d := &definitions{source: source}
	clex.Split(text, d)
	return d.names
}

// definitions is a clex.Sink.
type definitions struct {
	source bool
	names  []string
}

func (d *definitions) Directive([]clex.Token, bool)                 {}
func (d *definitions) Include([]clex.Token, bool, []clex.Condition) {}
func (d *definitions) Stray([]clex.Token)                           {}

func (d *definitions) Macro(_ bool, toks []clex.Token, _ []clex.Condition) {
	if !d.source && len(toks) > 0 {
		d.names = append(d.names, toks[0].Text)
	}
}

func (d *definitions) Entity(toks []clex.Token, _ []clex.Condition, _ bool) {
	toks = clex.Code(toks)
	body := len(toks)
	if from, to := clex.Aggregate(toks); to > 0 {
		if d.source {
			return
		}
		for i := 1; i < from; i++ {
			if t := toks[i-1].Text; t == "struct" || t == "union" || t == "enum" {
				d.names = append(d.names, toks[i].Text)
			}
		}
		for _, c := range enumerators(merge(toks)) {
			d.names = append(d.names, c.name)
		}
		toks, body = toks[to:], len(toks)-to
	}
	for i, t := range toks {
		if t.Is("{") || t.Is("=") {
			body = i
			break
		}
		if t.Text == "static" && d.source {
			return
		}
	}
	d.names = append(d.names, clex.Declared(toks[:body], nil).Names...)
}
