// SPDX-License-Identifier: Apache-2.0

package build

import (
	"debug/elf"

	"github.com/upsplice/upsplice/splice/object"
)

const (
	sttFunc  = elf.STT_FUNC
	stbLocal = elf.STB_LOCAL
)

func cmpOr(a, b *object.Symbol) *object.Symbol {
	if a != nil {
		return a
	}
	return b
}
