// SPDX-License-Identifier: Apache-2.0

package object

import (
	"fmt"
	"os"
)

// ReadFile reads the object at path. Errors name it.
func ReadFile(path string) (*Object, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	o, err := Read(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return o, nil
}
