// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"context"
	"os"
	"path/filepath"

	"github.com/upsplice/upsplice/splice/kbuild"
)

// Preprocess returns the source of a unit as the preprocessor leaves it, with the
// options that the unit is compiled with. The error is an *Error.
func (c *Compiler) Preprocess(ctx context.Context, u kbuild.Unit) ([]byte, error) {
	fail := func(output string, err error) ([]byte, error) {
		return nil, &Error{Unit: u.Object, Stage: "preprocessor", Output: output, Err: err}
	}
	tmp, err := os.MkdirTemp("", "upsplice-")
	if err != nil {
		return fail("", err)
	}
	defer os.RemoveAll(tmp)
	text := filepath.Join(tmp, "unit.i")
	args, err := command(u, text, filepath.Join(tmp, "unit.d"), false)
	if err != nil {
		return fail("", err)
	}
	args[len(args)-4] = "-E"
	if output, err := c.run(ctx, tmp, args); err != nil {
		return fail(output, err)
	}
	b, err := os.ReadFile(text)
	if err != nil {
		return fail("", err)
	}
	return b, nil
}
