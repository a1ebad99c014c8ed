// SPDX-License-Identifier: Apache-2.0

package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/upsplice/upsplice/splice/lines"
	"github.com/upsplice/upsplice/splice/patch"
	"github.com/upsplice/upsplice/splice/splicefile"
	"github.com/upsplice/upsplice/splice/tree"
)

// patchSet is what a splice that is no update of the distribution's is made from.
type patchSet struct {
	patches []*patch.Patch
	listed  []splicefile.Patch // as the manifest shows them
	id      string
}

func readPatches(files []string) (*patchSet, error) {
	set := &patchSet{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading the patch: %w", err)
		}
		p, err := patch.Parse(filepath.Base(name), bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		set.patches = append(set.patches, p)
		set.listed = append(set.listed, splicefile.Patch{Name: filepath.Base(name), SHA256: hex.EncodeToString(sum[:])})
	}
	set.id = idOf("patches", set.listed)
	return set, nil
}

// applied is what is stored beside a patched tree.
type applied struct {
	Delta  *tree.Delta
	Report *patch.Report
}

// patched makes the new side of a splice from patches: the running kernel, with
// another source. With layout, lines that did not change keep their numbers, so
// that no code differs for its __LINE__ alone.
func (s *store) patched(ctx context.Context, from *side, set *patchSet, layout bool) (*side, *applied, error) {
	to := *from
	to.imageID, to.Image, to.Modules = "", "", ""
	to.treeID = idOf("patched", from.treeID, set.id, layout)
	to.tree = s.path("trees", to.treeID)
	id := to.treeID + ".delta-" + from.treeID
	if s.has("trees", to.treeID) {
		var a applied
		text, err := os.ReadFile(s.path("trees", id))
		if err == nil && json.Unmarshal(text, &a) == nil && a.Delta != nil && a.Report != nil {
			return &to, &a, nil
		}
		if err := os.RemoveAll(to.tree); err != nil {
			return nil, nil, err
		}
	}
	tmp := to.tree + ".tmp-patch"
	delta, report, err := patch.Apply(ctx, from.tree, tmp, set.patches)
	if err != nil {
		return nil, nil, err
	}
	if layout {
		for _, f := range delta.Files {
			if err := keepLines(from.tree, tmp, f); err != nil {
				return nil, nil, err
			}
		}
	}
	a := &applied{delta, report}
	if err := s.write("trees", id, func(w io.Writer) error { return json.NewEncoder(w).Encode(a) }); err != nil {
		return nil, nil, fmt.Errorf("storing the delta: %w", err)
	}
	return &to, a, os.Rename(tmp, to.tree)
}

// keepLines lays a changed C file out anew.
func keepLines(pre, post string, f tree.File) error {
	if f.Kind != "changed" || !f.Kept || !strings.HasSuffix(f.Path, ".c") && !strings.HasSuffix(f.Path, ".h") {
		return nil
	}
	old, err := os.ReadFile(filepath.Join(pre, f.Path))
	if err != nil {
		return err
	}
	name := filepath.Join(post, f.Path)
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	laid := lines.Layout(old, text)
	if bytes.Equal(laid, text) {
		return nil
	}
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	// A new file: the old one may be linked from elsewhere.
	if err := os.Remove(name); err != nil {
		return err
	}
	if err := os.WriteFile(name, laid, 0o644); err != nil {
		return err
	}
	return os.Chtimes(name, st.ModTime(), st.ModTime())
}
