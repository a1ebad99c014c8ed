// SPDX-License-Identifier: Apache-2.0

// Package words puts numbers and names into sentences.
package words

import (
	"fmt"
	"strings"
	"time"
)

// Count gives a number with its noun: "1 function", "2 patches", "3 entries".
func Count(n int, noun string) string {
	return fmt.Sprintf("%d %s", n, Plural(n, noun))
}

// Plural gives the noun alone as n of them are called. Of a phrase the last word
// changes: "changed header".
func Plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	for _, end := range []string{"ch", "sh", "s", "x"} {
		if strings.HasSuffix(noun, end) {
			return noun + "es"
		}
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok && stem != "" && !strings.ContainsAny(stem[len(stem)-1:], "aeiou") {
		return stem + "ies"
	}
	return noun + "s"
}

// Verb gives the form of a regular verb that goes with n: Verb(1, "run") is "runs".
func Verb(n int, verb string) string {
	if n != 1 {
		return verb
	}
	if verb == "are" {
		return "is"
	}
	return verb + "s"
}

// Duration gives a time in the one unit that matters: "24 s", "9 min".
func Duration(d time.Duration) string {
	if d < 2*time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f min", d.Minutes())
}
