// SPDX-License-Identifier: Apache-2.0

package groups

import (
	"strconv"
	"strings"

	"github.com/upsplice/upsplice/splice/clex"
)

// evaluate computes a constant expression of integers in 64 bits. It knows the
// operators, casts to types of one word, and the usual macros for bits; all else
// is not evaluated.
func evaluate(toks []token, known map[string]int64) (int64, bool) {
	e := &evaluator{toks: toks, known: known}
	v := e.ternary()
	return v, !e.bad && e.at == len(e.toks)
}

type evaluator struct {
	toks  []token
	at    int
	depth int
	bad   bool
	known map[string]int64
}

const maxDepth = 64

func (e *evaluator) peek() string {
	if e.at < len(e.toks) {
		return e.toks[e.at].text
	}
	return ""
}

func (e *evaluator) take(text string) bool {
	if e.peek() == text {
		e.at++
		return true
	}
	return false
}

func (e *evaluator) fail() int64 {
	e.bad = true
	e.at = len(e.toks)
	return 0
}

func (e *evaluator) ternary() int64 {
	if e.depth++; e.depth > maxDepth {
		return e.fail()
	}
	defer func() { e.depth-- }()
	c := e.binary(0)
	if !e.take("?") {
		return c
	}
	a := e.ternary()
	if !e.take(":") {
		return e.fail()
	}
	b := e.ternary()
	if c != 0 {
		return a
	}
	return b
}

var precedence = map[string]int{
	"||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
	"<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}

func (e *evaluator) binary(least int) int64 {
	v := e.unary()
	for {
		op := e.peek()
		p := precedence[op]
		if p == 0 || p <= least || e.bad {
			return v
		}
		e.at++
		w := e.binary(p)
		v = e.apply(op, v, w)
	}
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (e *evaluator) apply(op string, v, w int64) int64 {
	switch op {
	case "||":
		return truth(v != 0 || w != 0)
	case "&&":
		return truth(v != 0 && w != 0)
	case "|":
		return v | w
	case "^":
		return v ^ w
	case "&":
		return v & w
	case "==":
		return truth(v == w)
	case "!=":
		return truth(v != w)
	case "<":
		return truth(v < w)
	case ">":
		return truth(v > w)
	case "<=":
		return truth(v <= w)
	case ">=":
		return truth(v >= w)
	case "<<", ">>":
		if w < 0 || w > 63 || op == ">>" && v < 0 {
			return e.fail()
		}
		if op == "<<" {
			return v << uint(w)
		}
		return v >> uint(w)
	case "+":
		return v + w
	case "-":
		return v - w
	case "*":
		return v * w
	}
	if w == 0 || v < 0 || w < 0 {
		return e.fail()
	}
	if op == "/" {
		return v / w
	}
	return v % w
}

func (e *evaluator) unary() int64 {
	if e.depth++; e.depth > maxDepth || e.at >= len(e.toks) {
		return e.fail()
	}
	defer func() { e.depth-- }()
	t := e.toks[e.at]
	e.at++
	switch {
	case t.kind == clex.Number:
		return e.number(t.text)
	case t.kind == clex.String:
		if len(t.text) == 3 && t.text[0] == '\'' && t.text[1] != '\\' {
			return int64(t.text[1])
		}
		return e.fail()
	case t.is("-"):
		return -e.unary()
	case t.is("+"):
		return e.unary()
	case t.is("~"):
		return ^e.unary()
	case t.is("!"):
		return truth(e.unary() == 0)
	case t.is("("):
		if castLength(e.toks[e.at:]) == 2 {
			e.at += 2
			return e.unary()
		}
		v := e.ternary()
		if !e.take(")") {
			return e.fail()
		}
		return v
	case t.ident():
		if e.peek() == "(" {
			return e.call(t.text)
		}
		if v, ok := e.known[t.text]; ok {
			return v
		}
	}
	return e.fail()
}

// castLength is the length of a cast to a type of one word that keeps the values
// of constants, with its closing parenthesis.
func castLength(toks []token) int {
	if len(toks) > 1 && toks[1].is(")") {
		switch toks[0].text {
		case "u64", "s64", "__u64", "__s64", "long", "loff_t", "gfp_t", "__force":
			return 2
		}
	}
	return 0
}

func (e *evaluator) call(name string) int64 {
	args := arguments(e.toks, e.at)
	end := after(e.toks, e.at)
	if !e.toks[end-1].is(")") || end-e.at > maxCall {
		return e.fail()
	}
	var vals []int64
	for i, a := range args {
		if (name == "_AC" || name == "_UL" || name == "_ULL") && i > 0 {
			break
		}
		in := &evaluator{toks: a, known: e.known, depth: e.depth}
		v := in.ternary()
		if in.bad || in.at != len(a) {
			return e.fail()
		}
		vals = append(vals, v)
	}
	e.at = end
	switch {
	case len(vals) == 1 && (name == "_AC" || name == "_UL" || name == "_ULL" || name == "UL" || name == "ULL"):
		return vals[0]
	case len(vals) == 1 && (name == "BIT" || name == "BIT_ULL" || name == "_BITUL" || name == "_BITULL" || name == "_BIT") && vals[0] >= 0 && vals[0] < 64:
		return 1 << uint(vals[0])
	case len(vals) == 2 && (name == "GENMASK" || name == "GENMASK_ULL") && vals[1] >= 0 && vals[0] < 64 && vals[1] <= vals[0]:
		return int64(^uint64(0) >> uint(63-vals[0]) &^ (1<<uint(vals[1]) - 1))
	}
	return e.fail()
}

func (e *evaluator) number(text string) int64 {
	digits := strings.TrimRight(text, "uUlL")
	if v, err := strconv.ParseInt(digits, 0, 64); err == nil {
		return v
	}
	v, err := strconv.ParseUint(digits, 0, 64)
	if err != nil {
		return e.fail()
	}
	return int64(v)
}
