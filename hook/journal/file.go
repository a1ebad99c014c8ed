// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/upsplice/upsplice/hook/outcome"
)

const (
	// formatVersion is that of every JSON file. It changes when an older program
	// would misread a file, not when a field is added.
	formatVersion = 1
	// The largest file is a record with the account of some thousand groups.
	maxFile = 32 << 20
)

type envelope struct {
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

// CorruptError: a file of the journal is not what upsplice wrote. Recover sets
// it aside.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("reading %s: damaged: %v", e.Path, e.Err)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// VersionError: a newer upsplice wrote the file. It comes inside an
// *outcome.Error with Refused.
type VersionError struct {
	Path        string
	Have, Known int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("it has version %d, this upsplice knows %d", e.Have, e.Known)
}

func isVersion(err error) bool {
	_, ok := errors.AsType[*VersionError](err)
	return ok
}

func isCorrupt(err error) bool {
	_, ok := errors.AsType[*CorruptError](err)
	return ok
}

// read decodes the file at path into v; false without an error if there is no
// such file.
func read(path string, v any) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the journal: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", path, err)
	}
	if err := decode(path, b, v); err != nil {
		return false, err
	}
	return true, nil
}

func decode(path string, b []byte, v any) error {
	if len(b) > maxFile {
		return &CorruptError{Path: path, Err: fmt.Errorf("larger than %d bytes", maxFile)}
	}
	var env envelope
	if err := json.Unmarshal(b, &env); err != nil {
		return &CorruptError{Path: path, Err: err}
	}
	switch {
	case env.Version > formatVersion:
		return &outcome.Error{
			Outcome: outcome.Refused,
			Check:   "journal version",
			What:    "reading " + path,
			Err:     &VersionError{Path: path, Have: env.Version, Known: formatVersion},
			Remedy:  "install the newer upsplice again",
		}
	case env.Version < 1:
		return &CorruptError{Path: path, Err: fmt.Errorf("version %d", env.Version)}
	case env.Data == nil || bytes.Equal(env.Data, []byte("null")):
		return &CorruptError{Path: path, Err: errors.New("no data")}
	}
	if err := json.Unmarshal(env.Data, v); err != nil {
		return &CorruptError{Path: path, Err: err}
	}
	return nil
}

// write replaces the file at path. After an error the old content is there.
func (j *Journal) write(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	b, err := json.Marshal(envelope{Version: formatVersion, Data: data})
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := j.mkdir(); err != nil {
		return err
	}
	// The library fsyncs the file. Its mode is not left to the umask: hooks run
	// under that of whoever started the package manager.
	err = renameio.WriteFile(path, append(b, '\n'), 0o644,
		renameio.WithTempDir(j.path(tmpDir)), renameio.WithStaticPermissions(0o644))
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// remove deletes the file at path, if it is there, for good.
func remove(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("removing %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename or a removal in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
