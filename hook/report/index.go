// SPDX-License-Identifier: Apache-2.0

package report

import (
	"math"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/splice/touch"
)

// The subject of a kernel commit says where it belongs in front of a colon, and what
// it does in words that are often those of the code. Files are compared with it by
// such words, each worth more the fewer files have it.

// index finds words in paths and in the lines that differ.
type index struct {
	files []touch.File
	parts []partOf           // of all files
	paths map[string][]int   // words of a path to files
	words map[string][]int   // words of lines and names to parts
	names map[string][]int   // names of functions, types, data to parts
	spans map[string]float64 // weight of a word of lines
}

type partOf struct {
	file int
	name string
}

// match is the file that a subject fits best.
type match struct {
	file      *touch.File
	parts     map[string]bool // names in it that fit
	certainty Certainty
}

var (
	markRE   = regexp.MustCompile(`\s*\((?:CVE|Closes|regression|fixes)[^)]*\)|^\[[^\]]*\]\s*`)
	prefixRE = regexp.MustCompile(`^((?:[A-Za-z0-9_.,/&*+ -]{1,40}:\s+)+)(.*)$`)
	tokenRE  = regexp.MustCompile(`[A-Za-z0-9_]+`)
	atomRE   = regexp.MustCompile(`[A-Za-z]+[0-9]*|[0-9]+`)
	namedRE  = regexp.MustCompile(`([A-Za-z_]\w*(?:->\w+|\.\w+)*)\(\)|\b([A-Za-z]\w*_\w+)\b`)
	// Where a subsystem's directory has another name.
	pathAlias = map[string]string{
		"alsa": "sound", "cifs": "smb", "dm": "md", "ib": "infiniband", "ksmbd": "smb", "perf": "events", "pm": "power",
		"rdma": "infiniband", "tracing": "trace", "wifi": "wireless",
	}
	common = map[string]bool{}
)

func init() {
	for w := range strings.FieldsSeq(`the and for with from when that this not use fix fixes fixed add adds added remove removed avoid prevent
		after before into out off only are was been use using used does don't check checks checking handle handling ensure make set get
		new old all any more less case cases bug issue possible potential missing wrong properly correct correctly via under during
		while without within if is in on of to by as at be do it an or no its also instead against upstream allow return value values
		error errors path driver kernel linux struct int void static const unsigned char long goto else break unlikely likely null ret err`) {
		common[w] = true
	}
}

func newIndex(files []touch.File) *index {
	ix := &index{files: files, paths: map[string][]int{}, words: map[string][]int{}, names: map[string][]int{}, spans: map[string]float64{}}
	inFiles := map[string]int{}
	for i, f := range files {
		if !f.Source() && path.Ext(f.Path) != ".h" {
			continue
		}
		for _, w := range unique(atoms(f.Path)) {
			ix.paths[w] = append(ix.paths[w], i)
		}
		seen := map[string]bool{}
		for _, p := range f.Parts {
			id := len(ix.parts)
			ix.parts = append(ix.parts, partOf{i, p.Name})
			ix.names[strings.ToLower(p.Name)] = append(ix.names[strings.ToLower(p.Name)], id)
			all := append([]string{p.Name}, p.Words...)
			words := map[string]bool{}
			for _, w := range all {
				words[strings.ToLower(w)] = true
				for _, a := range unique(atoms(w)) {
					words[a] = true
				}
			}
			for w := range words {
				ix.words[w] = append(ix.words[w], id)
				seen[w] = true
			}
		}
		for w := range seen {
			inFiles[w]++
		}
	}
	for w, n := range inFiles {
		ix.spans[w] = math.Log(float64(len(files)+1) / float64(n))
	}
	return ix
}

// atoms are the parts of names: "tcp_input.c" has tcp, input and c.
func atoms(text string) []string {
	list := atomRE.FindAllString(strings.ToLower(text), -1)
	out := list[:0]
	for _, w := range list {
		if len(w) > 1 {
			out = append(out, w)
		}
	}
	return out
}

// unique sorts, so that sums of weights come out the same each time.
func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// What the parts of a score are worth. They were tried on the changelogs of real
// updates; see certainty.
const (
	ofPath   = 2.0 // a word of the prefix in the path
	ofWord   = 1.0 // a word of the text in the lines of one part
	ofOthers = 0.3 // the same in the other parts of the file
	ofName   = 6.0 // a name in the text is that of a part
	ofUse    = 2.0 // a name in the text stands in the lines

	elsewhere = 0.4  // left of the score where no word of the prefix is in the path
	header    = 0.85 // left of the score of a header: its users are changed with it
)

// find returns the best file, if any fits at all.
func (ix *index) find(subject string) (match, bool) {
	subject = markRE.ReplaceAllString(subject, "")
	prefix, text := "", subject
	if m := prefixRE.FindStringSubmatch(subject); m != nil {
		prefix, text = m[1], m[2]
	}
	where := make([]float64, len(ix.files)) // by paths
	inPath := make([]int, len(ix.files))
	what := make([]float64, len(ix.parts)) // by part
	named := make([]bool, len(ix.parts))   // a name in the text fits the part
	want := 0
	for _, w := range unique(atoms(prefix)) {
		want++
		hits := ix.paths[w]
		if a := pathAlias[w]; a != "" && a != w {
			hits = union(hits, ix.paths[a])
		}
		for _, f := range hits {
			where[f] += ofPath * math.Log(float64(len(ix.files)+1)/float64(len(hits)))
			inPath[f]++
		}
	}
	for _, w := range unique(tokens(text)) {
		if hits := ix.paths[w]; len(hits) > 0 && len(hits) < len(ix.files)/4 {
			for _, f := range hits {
				where[f] += math.Log(float64(len(ix.files)+1) / float64(len(hits)))
			}
		}
		for _, p := range ix.words[w] {
			what[p] += ofWord * ix.spans[w]
		}
	}
	for _, m := range namedRE.FindAllStringSubmatch(text, -1) {
		name := strings.ToLower(m[1] + m[2])
		if i := strings.LastIndexAny(name, ".>"); i >= 0 {
			name = name[i+1:]
		}
		if len(name) < 4 {
			continue
		}
		for _, p := range ix.names[name] {
			what[p] += ofName * ix.spans[name] / float64(len(ix.names[name]))
			named[p] = true
		}
		for _, p := range ix.words[name] {
			what[p] += ofUse
			if ix.spans[name] > math.Log(float64(len(ix.files)+1)/4) {
				named[p] = true
			}
		}
	}
	return ix.best(where, inPath, want, what, named)
}

func union(a, b []int) []int {
	set := map[int]bool{}
	out := append([]int{}, a...)
	for _, v := range a {
		set[v] = true
	}
	for _, v := range b {
		if !set[v] {
			out = append(out, v)
		}
	}
	return out
}

// tokens are the words of a text that say something, whole and in parts.
func tokens(text string) []string {
	var list []string
	for _, w := range tokenRE.FindAllString(strings.ToLower(text), -1) {
		if len(w) > 2 && !common[w] {
			list = append(list, w)
		}
		if strings.Contains(w, "_") {
			for _, a := range atoms(w) {
				if len(a) > 2 && !common[a] {
					list = append(list, a)
				}
			}
		}
	}
	return list
}

// best adds up: where the file is, its best part, and a little of the others.
func (ix *index) best(where []float64, inPath []int, want int, what []float64, named []bool) (match, bool) {
	top := make([]float64, len(ix.files))
	rest := make([]float64, len(ix.files))
	byName := make([]bool, len(ix.files))
	for p, v := range what {
		f := ix.parts[p].file
		rest[f] += v
		top[f] = max(top[f], v)
		byName[f] = byName[f] || named[p]
	}
	first, second := -1, -1
	score := make([]float64, len(ix.files))
	for f := range ix.files {
		score[f] = where[f] + top[f] + ofOthers*min(rest[f]-top[f], top[f])
		// Words alone say little of a file that is elsewhere than the prefix has it.
		if want > 0 {
			fit := float64(inPath[f]) / float64(want)
			if byName[f] {
				fit = (1 + fit) / 2
			}
			score[f] *= elsewhere + (1-elsewhere)*fit
		}
		if !ix.files[f].Source() {
			score[f] *= header
		}
		switch {
		case score[f] == 0:
		case first < 0 || score[f] > score[first]:
			first, second = f, first
		case second < 0 || score[f] > score[second]:
			second = f
		}
	}
	if first < 0 || inPath[first] == 0 && !byName[first] {
		return match{}, false
	}
	m := match{file: &ix.files[first], parts: map[string]bool{}, certainty: Weak}
	for p, v := range what {
		if at := ix.parts[p]; at.file == first && at.name != "" && v >= top[first]/2 {
			m.parts[at.name] = true
		}
	}
	margin := second < 0 || score[first] >= 1.25*score[second]
	if byName[first] && (inPath[first] > 0 || want == 0) || want > 0 && inPath[first] == want && margin && top[first] > 0 {
		m.certainty = Strong
	}
	return m, true
}
