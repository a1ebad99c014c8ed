// SPDX-License-Identifier: Apache-2.0

package splicefile

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"time"
)

const manifestName = "manifest.json"

// Limits on what a splice may hold, for the writer as for the reader. A splice of
// a large update has a module of some MB; the manifest's largest part are the
// expected bytes of the functions.
const (
	maxManifest = 64 << 20
	maxModule   = 64 << 20
	maxModules  = 256
)

// fixedTime is the time of every member: the same contents, the same bytes.
var fixedTime = time.Unix(946684800, 0).UTC() // 2000-01-01

func write(w io.Writer, f *File) error {
	m := &f.Manifest
	if err := m.seal(f.Payload); err != nil {
		return fmt.Errorf("writing a splice: %w", err)
	}
	text, err := m.encode()
	if err != nil {
		return fmt.Errorf("writing a splice: %w", err)
	}
	if len(text) > maxManifest {
		return fmt.Errorf("writing a splice: a manifest of %d bytes is more than the limit of %d", len(text), maxManifest)
	}

	tw := tar.NewWriter(w)
	if err := member(tw, manifestName, text); err != nil {
		return fmt.Errorf("writing a splice: %w", err)
	}
	for _, mod := range m.Modules {
		if err := member(tw, mod.File, f.Payload[mod.Name]); err != nil {
			return fmt.Errorf("writing a splice: %w", err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("writing a splice: %w", err)
	}
	return nil
}

// seal fills in what follows from the rest.
func (m *Manifest) seal(payload map[string][]byte) error {
	m.Format = Format
	if len(m.Modules) != len(payload) {
		return fmt.Errorf("the manifest names %d modules, there are %d", len(m.Modules), len(payload))
	}
	for i := range m.Modules {
		mod := &m.Modules[i]
		data, ok := payload[mod.Name]
		if !ok {
			return fmt.Errorf("no bytes of module %q", mod.Name)
		}
		mod.SHA256, mod.Size = digest(data), int64(len(data))
	}
	if err := m.check(); err != nil {
		return err
	}
	id, err := m.digest()
	m.ID = id
	return err
}

func member(tw *tar.Writer, name string, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: fixedTime, Format: tar.FormatUSTAR}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := tw.Write(data)
	return err
}

// encode gives the manifest the one form that it has in a file. People read it
// with `tar -xO`, so it is indented.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// digest is the ID: over the manifest without it. The modules take part through
// their digests.
func (m *Manifest) digest() (string, error) {
	bare := *m
	bare.ID = ""
	text, err := bare.encode()
	if err != nil {
		return "", err
	}
	return digest(text), nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// check holds what writer and reader demand of a manifest beside digests.
func (m *Manifest) check() error {
	if len(m.Modules) > maxModules {
		return fmt.Errorf("%d modules: more than the limit of %d", len(m.Modules), maxModules)
	}
	names, files := make(map[string]bool), map[string]bool{manifestName: true}
	for _, mod := range m.Modules {
		if mod.Name == "" || names[mod.Name] {
			return fmt.Errorf("module name %q is empty or not unique", mod.Name)
		}
		// It becomes the name of a file: it must not lead anywhere.
		if mod.File == "" || mod.File != path.Base(mod.File) || mod.File == "." || mod.File == ".." || mod.File == "/" || len(mod.File) > 100 || files[mod.File] {
			return fmt.Errorf("module %s: file name %q is not a plain and unique one", mod.Name, mod.File)
		}
		if mod.Size < 0 || mod.Size > maxModule {
			return fmt.Errorf("module %s: %d bytes: more than the limit of %d", mod.Name, mod.Size, maxModule)
		}
		names[mod.Name], files[mod.File] = true, true
	}
	return nil
}
