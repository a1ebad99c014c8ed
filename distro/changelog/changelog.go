// SPDX-License-Identifier: Apache-2.0

// Package changelog reads Debian changelogs (deb-changelog(5)) as a stream: the
// kernel's has four megabytes, of which an update needs the first few hundred lines.
package changelog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/upsplice/upsplice/distro/debversion"
)

// Limits of one changelog. They are above anything real and keep hostile ones small.
const (
	maxLine  = 64 << 10 // bytes
	maxItems = 50_000   // of one entry; the largest of linux has about 3,000
	maxText  = 64 << 10 // bytes of one item
)

// Entry is one version.
type Entry struct {
	Source       string
	Version      string
	Distribution string
	Urgency      string
	Items        []Item
}

// Item is one bullet, of any depth, unwrapped to one line and without its bullet.
type Item struct {
	Text string
	CVEs []string // in the order of the text, without repetitions
}

// SyntaxError says which line does not fit the format.
type SyntaxError struct {
	Line   int // from 1
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("changelog, line %d: %s", e.Line, e.Reason) }

// NotFoundError says that a changelog does not reach back to the version asked for.
type NotFoundError struct {
	Version string
	Oldest  string // the oldest entry that was seen, "" if there was none
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("reading changelog: it has no version %s or older (oldest is %q)", e.Version, e.Oldest)
}

var (
	headRE = regexp.MustCompile(`^([a-z0-9][a-z0-9+.-]*) \(([^() \t]+)\)((?: [A-Za-z0-9.+~-]+)*);(.*)$`)
	cveRE  = regexp.MustCompile(`CVE-[0-9]{4}-[0-9]{4,7}\b`)
	bullet = regexp.MustCompile(`^(?:  \* |    - |      \+ )`)
	// The name that stands above what one person did.
	person = regexp.MustCompile(`^  \[ .* \]$`)
)

// Entries yields the entries from the newest to the oldest. It reads only as far
// as the loop goes. The last pair may carry an error: *SyntaxError or that of r.
func Entries(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s := bufio.NewScanner(r)
		s.Buffer(nil, maxLine)
		p := parser{}
		for s.Scan() {
			p.line++
			done, err := p.feed(strings.TrimRight(s.Text(), " \t\r"))
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if done && !yield(p.take(), nil) {
				return
			}
		}
		err := s.Err()
		switch {
		case errors.Is(err, bufio.ErrTooLong):
			err = p.errorf("is too long")
		case err != nil:
			err = fmt.Errorf("reading changelog: %w", err)
		case p.open:
			err = p.errorf("the file ends inside an entry")
		}
		if err != nil {
			yield(Entry{}, err)
		}
	}
}

// Between returns the entries with from < version <= to, the newest first. It
// stops reading at the first version that is not newer than from. Errors:
// *NotFoundError if there is none such, *debversion.InvalidError, and those of
// the entries.
func Between(entries iter.Seq2[Entry, error], from, to string) ([]Entry, error) {
	low, err := debversion.Parse(from)
	if err != nil {
		return nil, err
	}
	high, err := debversion.Parse(to)
	if err != nil {
		return nil, err
	}
	var found []Entry
	oldest := ""
	for e, err := range entries {
		if err != nil {
			return nil, err
		}
		v, err := debversion.Parse(e.Version)
		if err != nil {
			return nil, err
		}
		if v.Compare(low) <= 0 {
			return found, nil
		}
		oldest = e.Version
		if v.Compare(high) <= 0 {
			found = append(found, e)
		}
	}
	return nil, &NotFoundError{Version: from, Oldest: oldest}
}

type parser struct {
	line  int
	open  bool // inside an entry
	entry Entry
	text  strings.Builder // of the current item
}

func (p *parser) errorf(reason string) error { return &SyntaxError{Line: p.line, Reason: reason} }

// feed takes one line; done means that it ended an entry.
func (p *parser) feed(line string) (done bool, err error) {
	switch {
	case line == "":
		p.endItem()
		return false, nil
	case line[0] != ' ':
		return false, p.head(line)
	case !p.open:
		return false, p.errorf("is outside of an entry")
	case strings.HasPrefix(line, " --"):
		p.endItem()
		p.open = false
		return true, nil
	case person.MatchString(line):
		p.endItem()
		return false, nil
	}
	if b := bullet.FindString(line); b != "" {
		p.endItem()
		line = line[len(b):]
	}
	line = strings.TrimSpace(line)
	if p.text.Len()+len(line) > maxText {
		return false, p.errorf("makes an item too long")
	}
	if p.text.Len() > 0 {
		p.text.WriteByte(' ')
	}
	p.text.WriteString(line)
	if len(p.entry.Items) > maxItems {
		return false, p.errorf("the entry has too many items")
	}
	return false, nil
}

func (p *parser) head(line string) error {
	if p.open {
		return p.errorf("the entry before has no end")
	}
	m := headRE.FindStringSubmatch(line)
	if m == nil {
		return p.errorf("starts no entry")
	}
	p.open = true
	p.entry = Entry{Source: m[1], Version: m[2], Distribution: strings.TrimSpace(m[3])}
	for kv := range strings.SplitSeq(m[4], ",") {
		if k, v, ok := strings.Cut(strings.TrimSpace(kv), "="); ok && strings.EqualFold(k, "urgency") {
			p.entry.Urgency = v
		}
	}
	return nil
}

func (p *parser) endItem() {
	if p.text.Len() == 0 {
		return
	}
	it := Item{Text: p.text.String()}
	for _, c := range cveRE.FindAllString(it.Text, -1) {
		if !slices.Contains(it.CVEs, c) {
			it.CVEs = append(it.CVEs, c)
		}
	}
	p.entry.Items = append(p.entry.Items, it)
	p.text.Reset()
}

func (p *parser) take() Entry {
	e := p.entry
	p.entry = Entry{}
	return e
}
