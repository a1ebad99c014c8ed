// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadGivesWhatWasWritten(t *testing.T) {
	for _, in := range []Input{small(), large(), {}} {
		r := Make(in)
		again, err := Read(jsonOf(t, r))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(jsonOf(t, r)), string(jsonOf(t, again))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if !bytes.Equal(textOf(t, r, ""), textOf(t, again, "")) || !bytes.Equal(htmlOf(t, r), htmlOf(t, again)) {
			t.Error("the views differ after a report is read")
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "unexpected end"},
		{`{"report": 2}`, "version 2"},
		{`{"report": 1, "groups": [{"number": 7}]}`, "has the number 7"},
		{`{"report": 1, "groups": [], "cves": [{"id": "CVE-1", "groups": [1]}]}`, "CVE-1 names group 1 of 0"},
		{`{"report": 1, "groups": [{"number": 1}], "subsystems": [{"files": [{"path": "a.c", "groups": [1]}]}]}`, "has no file"},
	} {
		if _, err := Read([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Read(%s) = %v, want %q", c.text, err, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	data, err := json.Marshal(Make(small()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"report": 1, "sums": {"groups": {"total": -1, "live": 3}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Read(data)
		if err != nil {
			return
		}
		if err := r.Text(io.Discard, ""); err != nil {
			t.Error(err)
		}
		var page bytes.Buffer
		if err := r.HTML(&page, ""); err != nil {
			t.Error(err)
		}
		r.Summary(0)
		r.Reasons()
	})
}
