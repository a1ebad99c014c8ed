// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// alive tells whether the process of run still exists: the same PID, started
// at the same time, in the same boot.
func (j *Journal) alive(run Run) bool {
	if run.BootID != j.boot {
		return false
	}
	start, err := j.startTime(run.PID)
	return err == nil && start == run.PIDStart
}

// startTime returns field 22 of /proc/pid/stat (proc(5)); an error for a
// zombie, which does no more work.
func (j *Journal) startTime(pid int) (uint64, error) {
	path := filepath.Join(j.proc, strconv.Itoa(pid), "stat")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading the start time of a process: %w", err)
	}
	n, err := parseStat(b)
	if err != nil {
		return 0, fmt.Errorf("reading %s: %w", path, err)
	}
	return n, nil
}

func parseStat(b []byte) (start uint64, err error) {
	// The second field is the command in parentheses, and may itself hold blanks
	// and parentheses; the rest begins after the last one.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, errors.New("no command in it")
	}
	fields := bytes.Fields(b[i+1:])
	// proc(5) counts from one, and the first here is the third.
	const stateField, startField = 0, 22 - 3
	if len(fields) <= startField {
		return 0, fmt.Errorf("%d fields", len(fields)+2)
	}
	if s := string(fields[stateField]); s == "Z" || s == "X" {
		return 0, errors.New("the process has ended")
	}
	return strconv.ParseUint(string(fields[startField]), 10, 64)
}
