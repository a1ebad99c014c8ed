// SPDX-License-Identifier: Apache-2.0

package match

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/compile"
	"github.com/upsplice/upsplice/splice/kbuild"
	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/object"
)

// The environment of TestProperty:
//
//	UPSPLICE_PROPERTY        "all", or how many units are sampled; 12 if it is not set
//	UPSPLICE_PROPERTY_SEED   which ones; else the clock says
//	UPSPLICE_PROPERTY_KERNEL "backport": a kernel of a newer series, instead of the distribution's own
//	UPSPLICE_PROPERTY_DIR    keeps the source tree and the objects for the next run
const propertyUnits = 12

// Shares below which the engine is not what it says. A few units may happen to be
// those with many functions of headers, which other units have too.
const (
	leastUnchanged = 1.0
	leastMatched   = 0.995
	leastOfSample  = 0.97
)

// TestProperty takes units of a real kernel's built-in code: the object compared with
// itself is unchanged, and all its functions are in the image that the distribution
// built of it.
func TestProperty(t *testing.T) {
	s, units := propertySide(t)
	total := len(units)
	units = sample(t, units)
	c := &compile.Compiler{Output: s.out, NoDebug: true}
	p := property{reasons: map[string]*reason{}}
	for chunk := range slices.Chunk(units, 24) {
		objs, err := c.Units(t.Context(), chunk, nil)
		if err != nil {
			p.uncompiled = append(p.uncompiled, err.Error())
		}
		p.failed += len(chunk) - len(objs)
		for _, o := range objs {
			p.unit(t, s, o)
		}
	}
	p.report(t, s.String(), total)
	if p.failed > 0 {
		t.Errorf("%d of %d units do not compile", p.failed, len(units))
	}
	least := leastMatched
	if len(units) < total {
		least = leastOfSample
	}
	if p.units == 0 || share(p.unchanged, p.units) < leastUnchanged || share(p.matched, p.functions) < least {
		t.Errorf("%.2f %% of the units are unchanged, %.2f %% of the functions match; %.2f and %.2f are demanded",
			100*share(p.unchanged, p.units), 100*share(p.matched, p.functions), 100*leastUnchanged, 100*least)
	}
}

// propertySide unpacks a kernel and lists its built-in units that are compiled.
func propertySide(t *testing.T) (side, []kbuild.Unit) {
	t.Helper()
	parts := []lab.Part{lab.Image, lab.Headers, lab.Source}
	var k lab.Kernel
	if os.Getenv("UPSPLICE_PROPERTY_KERNEL") == "backport" {
		k = lab.NeedBackport(t, lab.Cloud, parts...)
	} else {
		_, k = lab.NeedPair(t, parts...)
	}
	dir := os.Getenv("UPSPLICE_PROPERTY_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	s := keptSide(t, k, filepath.Join(dir, k.Release+"_"+k.Version))
	units, err := s.out.Query(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, slices.DeleteFunc(units, func(u kbuild.Unit) bool {
		return u.Target != kbuild.Vmlinux || filepath.Ext(u.Source) != ".c" || strings.HasPrefix(u.Source, "O:")
	})
}

// keptSide uses what an earlier run has unpacked.
func keptSide(t *testing.T, k lab.Kernel, dir string) side {
	t.Helper()
	done := filepath.Join(dir, "done")
	if _, err := os.Stat(done); err != nil {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		s, _ := unpackSide(t, k, dir, "")
		if err := os.WriteFile(done, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return s
	}
	return openSide(t, k, dir)
}

// sample chooses the units.
func sample(t *testing.T, units []kbuild.Unit) []kbuild.Unit {
	t.Helper()
	n := propertyUnits
	switch v := os.Getenv("UPSPLICE_PROPERTY"); v {
	case "":
	case "all":
		return units
	default:
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 1 {
			t.Fatalf("UPSPLICE_PROPERTY=%s is neither \"all\" nor a number of units", v)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("UPSPLICE_PROPERTY_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("UPSPLICE_PROPERTY_SEED=%s is no number", v)
		}
	}
	t.Logf("units chosen with UPSPLICE_PROPERTY_SEED=%d", seed)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(units), func(i, j int) { units[i], units[j] = units[j], units[i] })
	units = units[:min(n, len(units))]
	slices.SortFunc(units, func(a, b kbuild.Unit) int { return cmp.Compare(a.Object, b.Object) })
	return units
}

// property is what was found.
type property struct {
	units, unchanged   int
	failed             int      // units that did not compile
	uncompiled         []string // what the compiler said of them
	functions, matched int      // those that the linker dropped not counted
	relocs             int
	dropped            []string // functions that are not in the kernel
	changed            []string // units that differ from themselves
	reasons            map[string]*reason
}

type reason struct {
	count   int
	example string
}

func (p *property) unit(t *testing.T, s side, o compile.Object) {
	t.Helper()
	pre, err := object.ReadFile(o.Path)
	if err != nil {
		t.Error(err)
		return
	}
	again, err := object.ReadFile(o.Path)
	if err != nil {
		t.Error(err)
		return
	}
	p.units++
	switch d, err := objdiff.Compare(pre, again); {
	case err != nil:
		p.changed = append(p.changed, fmt.Sprintf("%s: %v", o.Unit.Object, err))
	case d.Outcome != objdiff.Unchanged:
		p.changed = append(p.changed, fmt.Sprintf("%s: %s %v %v %v", o.Unit.Object, d.Outcome, d.Functions, d.Data, d.Refusals))
	default:
		p.unchanged++
	}
	want := slices.DeleteFunc(functionsOf(pre), func(f *object.Symbol) bool {
		return strings.HasPrefix(f.Name, "__pfx_") // the room before a function
	})
	rep, err := Functions(pre, s.im, want)
	if err != nil {
		t.Errorf("%s: %v", o.Unit.Object, err)
		return
	}
	for _, f := range want {
		p.relocs += rep.Found[f].Relocs
	}
	p.functions += len(want)
	p.matched += len(want) - len(rep.Failed)
	for _, f := range rep.Failed {
		if strings.Contains(f.Reason, "it is weak") || f.Candidates == 0 && f.Reason == "kallsyms has no such function" {
			p.functions--
			p.dropped = append(p.dropped, f.Function)
			continue
		}
		p.add(o.Unit.Object, f)
	}
}

var numbers = regexp.MustCompile(`0x[0-9a-f]+|\b[0-9]+\b`)

// add counts a reason without the names and numbers in it.
func (p *property) add(unit string, f Mismatch) {
	text := f.Reason
	if _, rest, ok := strings.Cut(text, " would be at"); ok {
		text = "something would be at" + rest
		if before, _, ok := strings.Cut(text, "kallsyms has"); ok {
			text = before + "kallsyms has something else"
		}
	}
	if before, _, ok := strings.Cut(text, "address of"); ok {
		text = before + "address of something"
	}
	text = numbers.ReplaceAllString(text, "N")
	r := p.reasons[text]
	if r == nil {
		r = &reason{example: unit + ": " + f.Error()}
		p.reasons[text] = r
	}
	r.count++
}

func share(n, of int) float64 { return float64(n) / float64(max(of, 1)) }

func (p *property) report(t *testing.T, kernel string, total int) {
	t.Helper()
	t.Logf("%s: %d of %d built-in units", kernel, p.units, total)
	t.Logf("unchanged against themselves: %d of %d units, %.2f %%", p.unchanged, p.units, 100*share(p.unchanged, p.units))
	t.Logf("matched: %d of %d functions, %.3f %%, with %d relocations", p.matched, p.functions, 100*share(p.matched, p.functions), p.relocs)
	slices.Sort(p.dropped)
	t.Logf("not in the kernel, which has another definition or none: %d: %s", len(p.dropped), strings.Join(p.dropped, " "))
	t.Logf("do not compile: %d units", p.failed)
	for _, text := range p.uncompiled {
		t.Log(text)
	}
	for _, c := range p.changed {
		t.Logf("changed: %s", c)
	}
	byCount := slices.SortedFunc(maps.Keys(p.reasons), func(a, b string) int {
		return cmp.Or(p.reasons[b].count-p.reasons[a].count, cmp.Compare(a, b))
	})
	for _, r := range byCount {
		t.Logf("%5d  %s\n       %s", p.reasons[r].count, r, p.reasons[r].example)
	}
}
