// SPDX-License-Identifier: Apache-2.0

// Package snapshot gets package versions that the mirrors have dropped from an
// archive that keeps them. The archive answers like the public snapshot archive of Debian does:
//
//	BASE/mr/binary/NAME/VERSION/binfiles?fileinfo=1   which files, as JSON
//	BASE/file/SHA1                                    one file by its hash
//
// No signature covers these files: what they are trusted with is the transport
// (https) and the hash in the answer. Whoever sets BASE decides to trust it.
package snapshot

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/upsplice/upsplice/plugins/backend"
)

const (
	maxAnswer = 4 << 20 // bytes of JSON
	maxFile   = 2 << 30 // bytes of a package

	// stall is how long a transfer may stand still.
	stall = 2 * time.Minute
)

// Client of one archive.
type Client struct {
	Base string       // URL, without a slash at the end
	HTTP *http.Client // nil: http.DefaultClient, which heeds the proxy variables
}

// File is one package file of the archive.
type File struct {
	SHA1 string
	Size int64 // bytes
	Arch string
}

type binfiles struct {
	Result []struct {
		Architecture string `json:"architecture"`
		Hash         string `json:"hash"`
	} `json:"result"`
	Info map[string][]struct {
		Size int64 `json:"size"`
	} `json:"fileinfo"`
}

var sha1RE = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Find looks up a package for an architecture, or for all of them. Error kinds:
// NotFound, Unavailable, Corrupt for an answer that makes no sense.
func (c *Client) Find(ctx context.Context, name, version, arch string) (File, error) {
	u := c.Base + "/mr/binary/" + url.PathEscape(name) + "/" + url.PathEscape(version) + "/binfiles?fileinfo=1"
	what := name + " " + version
	resp, err := c.get(ctx, u, what, 0)
	if err != nil {
		return File{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return File{}, unavailable(ctx, u, err)
	}
	var answer binfiles
	if len(data) > maxAnswer {
		err = fmt.Errorf("it has more than %d bytes", maxAnswer)
	} else {
		err = json.Unmarshal(data, &answer)
	}
	if err != nil {
		return File{}, &backend.Error{Kind: backend.Corrupt, What: u, Detail: err.Error()}
	}
	for _, r := range answer.Result {
		if r.Architecture != arch && r.Architecture != "all" {
			continue
		}
		f := File{SHA1: r.Hash, Arch: r.Architecture}
		if info := answer.Info[r.Hash]; len(info) > 0 {
			f.Size = info[0].Size
		}
		if !sha1RE.MatchString(f.SHA1) || f.Size < 0 || f.Size > maxFile {
			return File{}, &backend.Error{Kind: backend.Corrupt, What: u, Detail: fmt.Sprintf("hash %.60q, %d bytes", f.SHA1, f.Size)}
		}
		return f, nil
	}
	return File{}, &backend.Error{Kind: backend.NotFound, What: what, Detail: "the snapshot archive has no file for " + arch}
}

// Download writes the file to path, which appears only complete and verified. A
// transfer that broke off is continued. progress gets the bytes so far.
func (c *Client) Download(ctx context.Context, f File, path string, progress func(done int64)) error {
	part := path + ".part"
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("downloading from the snapshot archive: %w", err)
	}
	defer out.Close()
	h := sha1.New()
	have, err := io.Copy(h, out)
	if err != nil {
		return fmt.Errorf("downloading from the snapshot archive: reading %s: %w", part, err)
	}
	u := c.Base + "/file/" + f.SHA1
	if have != f.Size || have == 0 {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		resp, err := c.get(ctx, u, path, have)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusPartialContent && have > 0 {
			if err := errors.Join(out.Truncate(0), rewind(out)); err != nil {
				return fmt.Errorf("downloading from the snapshot archive: %w", err)
			}
			h.Reset()
			have = 0
		}
		idle := time.AfterFunc(stall, func() {
			cancel(&backend.Error{Kind: backend.Unavailable, What: u, Detail: fmt.Sprintf("nothing came for %v", stall)})
		})
		defer idle.Stop()
		n, err := io.Copy(io.MultiWriter(out, h), &counter{r: io.LimitReader(resp.Body, maxFile+1-have), add: func(n int64) {
			idle.Reset(stall)
			progress(have + n)
		}})
		have += n
		if err != nil {
			var disk *os.PathError
			if errors.As(err, &disk) {
				return fmt.Errorf("downloading from the snapshot archive: %w", err)
			}
			return unavailable(ctx, u, err)
		}
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != f.SHA1 {
		os.Remove(part)
		return &backend.Error{Kind: backend.Corrupt, What: u, Detail: fmt.Sprintf("%d bytes have the hash %s", have, sum)}
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("downloading from the snapshot archive: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("downloading from the snapshot archive: %w", err)
	}
	return nil
}

func rewind(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func (c *Client) get(ctx context.Context, u, what string, from int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, &backend.Error{Kind: backend.Internal, What: u, Detail: err.Error(), Remedy: "check the address of the snapshot archive"}
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, unavailable(ctx, u, err)
	}
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent && from > 0:
		return resp, nil
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		err = &backend.Error{Kind: backend.NotFound, What: what, Detail: "the snapshot archive does not have it"}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && from > 0:
		resp.Body.Close()
		return c.get(ctx, u, what, 0)
	default:
		err = &backend.Error{Kind: backend.Unavailable, What: u, Detail: "the server says " + resp.Status}
	}
	resp.Body.Close()
	return nil, err
}

func unavailable(ctx context.Context, u string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return &backend.Error{Kind: backend.Unavailable, What: u, Detail: strings.TrimSpace(err.Error()), Remedy: "check the network and the snapshot archive"}
}

type counter struct {
	r   io.Reader
	n   int64
	add func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.add(c.n)
	return n, err
}
