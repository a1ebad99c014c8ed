// SPDX-License-Identifier: Apache-2.0

package splicefile

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

func read(r io.Reader) (*File, error) {
	f, err := readFile(r)
	if err != nil {
		return nil, fmt.Errorf("reading a splice: %w", err)
	}
	return f, nil
}

func readFile(r io.Reader) (*File, error) {
	// Not much more than the members can take, however many headers there are.
	limited := &io.LimitedReader{R: r, N: maxManifest + maxModules*maxModule + 1<<20}
	whole := sha256.New()
	tee := io.TeeReader(limited, whole)
	tr := tar.NewReader(tee)
	text, err := next(tr, manifestName, maxManifest)
	if err != nil {
		return nil, err
	}
	f := &File{Payload: make(map[string][]byte)}
	if err := decode(text, &f.Manifest); err != nil {
		return nil, err
	}
	m := &f.Manifest
	if err := m.check(); err != nil {
		return nil, err
	}
	id, err := m.digest()
	if err != nil {
		return nil, err
	}
	if id != m.ID {
		return nil, fmt.Errorf("%s: damaged or altered: its id is %q, its contents are those of %q", manifestName, m.ID, id)
	}
	for _, mod := range m.Modules {
		data, err := next(tr, mod.File, maxModule)
		if err != nil {
			return nil, err
		}
		if got := digest(data); got != mod.SHA256 || int64(len(data)) != mod.Size {
			return nil, fmt.Errorf("%s: damaged or altered: digest %s instead of %s", mod.File, got, mod.SHA256)
		}
		f.Payload[mod.Name] = data
	}
	if h, err := tr.Next(); err == nil {
		return nil, fmt.Errorf("%q: not named in the manifest", h.Name)
	} else if err != io.EOF {
		return nil, fmt.Errorf("after the last module: %w", err)
	}
	// Headers, padding and what stands behind the end are in no digest; there must
	// be one file only of each ID.
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return nil, err
	}
	again := sha256.New()
	if err := write(again, f); err != nil {
		return nil, err
	}
	if !bytes.Equal(again.Sum(nil), whole.Sum(nil)) {
		return nil, errors.New("truncated or altered: its contents are whole, but the file around them is not as upsplice writes it")
	}
	return f, nil
}

// next reads the next member, which must have the name.
func next(tr *tar.Reader, name string, limit int64) ([]byte, error) {
	h, err := tr.Next()
	if err == io.EOF {
		return nil, fmt.Errorf("%s is missing: the file is truncated or no splice", name)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", name, err)
	}
	if h.Name != name || h.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("%q where %s has to be: the file is no splice or was altered", h.Name, name)
	}
	if h.Size > limit {
		return nil, fmt.Errorf("%s: %d bytes: more than the limit of %d", name, h.Size, limit)
	}
	// Not make([]byte, h.Size): the header of a small file can promise much.
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(tr, limit)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b.Bytes(), nil
}

func decode(text []byte, m *Manifest) error {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	if head.Format != Format {
		return fmt.Errorf("%s: format %d is not known, only %d: another version of upsplice made it; rebuild it or update upsplice", manifestName, head.Format, Format)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	// One form only, so that the id covers every byte of the manifest.
	again, err := m.encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(again, text) {
		return fmt.Errorf("%s: not in the form that upsplice writes", manifestName)
	}
	return printable(text)
}

// printable refuses texts that would control the terminal which they are shown on.
func printable(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", manifestName, err)
		}
		s, ok := token.(string)
		if i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }); ok && i >= 0 {
			return fmt.Errorf("%s: %+q has a control character", manifestName, s)
		}
	}
}
