// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/kmod/cfiles"
	"github.com/upsplice/upsplice/splice/build"
	"github.com/upsplice/upsplice/splice/patch"
)

// patchFile is a patch on its way to the build process, which as another user may
// not be able to read the file itself.
type patchFile struct {
	Name string `json:"name"`
	Text []byte `json:"text"`
}

// readPatches reads the files that the caller named. They are not parsed here: this
// may be root.
func readPatches(paths []string) ([]patchFile, error) {
	var list []patchFile
	total := 0
	for _, path := range paths {
		text, err := readPatch(path)
		if err != nil {
			return nil, &outcome.Error{Outcome: outcome.Failed, What: "reading the patch", Err: err}
		}
		if total += len(text); total > patch.MaxBytes {
			return nil, &outcome.Error{Outcome: outcome.Failed, What: "reading the patch " + path,
				Err: fmt.Errorf("more than %d bytes in all", patch.MaxBytes)}
		}
		list = append(list, patchFile{Name: filepath.Base(path), Text: text})
	}
	return list, nil
}

func readPatch(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, patch.MaxBytes+1))
}

// buildRequest is what a request asks of the engine. done removes its files.
func buildRequest(req request) (br build.Request, done func(), err error) {
	br = build.Request{From: req.From, Description: req.Description, Policy: req.Policy, Cache: req.Cache, Jobs: req.Jobs}
	if req.To != nil {
		br.To = *req.To
	}
	if br.CFiles, err = cfiles.Write(filepath.Join(req.Cache, "cfiles")); err != nil {
		return br, nil, err
	}
	dir, err := os.MkdirTemp(filepath.Join(req.Cache, "tmp"), "patches-")
	if err != nil {
		return br, nil, err
	}
	done = func() { _ = os.RemoveAll(dir) }
	for i, p := range req.Patches {
		// Its name goes into the splice; two patches may have the same.
		to := filepath.Join(dir, strconv.Itoa(i+1), p.Name)
		if err = validName(p.Name); err == nil {
			err = os.Mkdir(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, p.Text, 0o644)
		}
		if err != nil {
			done()
			return br, nil, err
		}
		br.Patches = append(br.Patches, to)
	}
	return br, done, nil
}

func validName(name string) error {
	odd := strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') || odd || len(name) > 255 {
		return fmt.Errorf("reading the request: %q is no name of a patch", name)
	}
	return nil
}

// ofPatch says whether a patch is why nothing was built: it does not fit, or does
// what a splice cannot.
func ofPatch(err error) bool {
	var hunk *patch.HunkError
	var applied *patch.AppliedError
	var unsupported *patch.UnsupportedError
	return errors.As(err, &hunk) || errors.As(err, &applied) || errors.As(err, &unsupported)
}
