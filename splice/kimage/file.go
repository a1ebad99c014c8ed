// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"fmt"
	"os"
)

// OpenFile opens the image at path. Errors name it.
func OpenFile(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	im, err := Open(f, st.Size())
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return im, nil
}
