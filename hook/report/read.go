// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"fmt"
)

// Read reads the JSON form. The views take numbers of groups from it, so that they
// are checked.
func Read(data []byte) (*Report, error) {
	r := &Report{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, err
	}
	if r.Version != Version {
		return nil, fmt.Errorf("it is of version %d, this upsplice knows %d", r.Version, Version)
	}
	for i, g := range r.Groups {
		if g.Number != i+1 {
			return nil, fmt.Errorf("group %d has the number %d", i+1, g.Number)
		}
	}
	check := func(where string, numbers []int) error {
		for _, n := range numbers {
			if n < 1 || n > len(r.Groups) {
				return fmt.Errorf("%s names group %d of %d", where, n, len(r.Groups))
			}
			if len(files(r.Groups[n-1].Group)) == 0 {
				return fmt.Errorf("%s names group %d, which has no file", where, n)
			}
		}
		return nil
	}
	for _, s := range r.Subsystems {
		for _, f := range s.Files {
			if err := check(f.Path, f.Groups); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range r.CVEs {
		if err := check(c.ID, c.Groups); err != nil {
			return nil, err
		}
	}
	return r, nil
}
