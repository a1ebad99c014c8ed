// SPDX-License-Identifier: Apache-2.0

package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/upsplice/upsplice/hook/words"
)

//go:embed report.html.tmpl
var page string

var tmpl = template.Must(template.New("report").Funcs(template.FuncMap{
	"count":   words.Count,
	"plural":  words.Plural,
	"share":   share,
	"percent": percent,
	"phrase":  phrase,
	"top":     topDirs,
	"join":    func(list []string) string { return strings.Join(list, ", ") },
}).Parse(page))

// percent of a bar, in a form that is a length of CSS.
func percent(part, of int) string {
	if of == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(part)/float64(of))
}

// HTML writes the report as one page that needs nothing from elsewhere and no
// scripts. would is as in Text. The page is well-formed XML, too.
func (r *Report) HTML(w io.Writer, would string) error {
	return tmpl.Execute(w, view{r, would})
}

// view is what the page is made of.
type view struct {
	*Report
	Would string
}

// Title says what the report is about.
func (v view) Title() string {
	if len(v.Patches) > 0 {
		return fmt.Sprintf("%s of %s", strings.Join(v.Patches, ", "), v.From.Version)
	}
	return v.From.Version + " → " + v.To.Version
}

// Headline is the sum in one line.
func (v view) Headline() string {
	if v.Sums.Groups.Total == 0 {
		return "Nothing of it reaches code that this kernel runs."
	}
	verb := "is live"
	if v.Sums.Groups.Live != 1 {
		verb = "are live"
	}
	if v.Would != "" {
		verb = v.Would + "live"
	}
	return fmt.Sprintf("%s %s.", v.Share(), verb)
}

// At returns the group of a number.
func (v view) At(number int) Group { return v.Groups[number-1] }

// Home tells whether the group is shown with that file: it is with the first of its.
func (v view) Home(number int, path string) bool {
	list := files(v.At(number).Group)
	return len(list) > 0 && list[0] == path
}

// FirstFile is where the group is shown.
func (v view) FirstFile(number int) string { return files(v.At(number).Group)[0] }

// Others are the other files of a group.
func (v view) Others(number int) []string { return files(v.At(number).Group)[1:] }

// Where names the files of a group.
func (v view) Where(g Group) string { return cut(files(g.Group)) }

// Of lists the groups that are counted under a kind of reason.
func (v view) Of(code string) (list []Group) {
	for _, g := range v.Groups {
		if g.State == Deferred && first(g.Group) == code {
			list = append(list, g)
		}
	}
	return list
}

// Reaching are the CVEs that concern running code.
func (v view) Reaching() (list []CVE) {
	for _, c := range v.CVEs {
		if c.reaches() {
			list = append(list, c)
		}
	}
	return list
}

// Elsewhere are the other CVEs.
func (v view) Elsewhere() (list []CVE) {
	for _, c := range v.CVEs {
		if !c.reaches() {
			list = append(list, c)
		}
	}
	return list
}

// Class is the state as the style sheet knows it.
func (v view) Class(s State) string { return strings.ReplaceAll(string(s), " ", "-") }

// Certain says how far the states of CVEs can be trusted.
func (v view) Certain() string { return Certain }
