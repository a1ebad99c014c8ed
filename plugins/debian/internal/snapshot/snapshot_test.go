// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/upsplice/upsplice/plugins/backend"
)

var content = bytes.Repeat([]byte("package "), 10_000)

func sum(b []byte) string {
	s := sha1.Sum(b)
	return hex.EncodeToString(s[:])
}

// serve answers like the public snapshot archive; file serves the content.
func serve(t *testing.T, file http.HandlerFunc) *Client {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mr/binary/linux-source-6.1/6.1.1-1~x+1/binfiles", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"result":[{"architecture":"arm64","hash":"00"},{"architecture":"all","hash":%q}],"fileinfo":{%q:[{"size":%d,"name":"x.deb"}]}}`,
			sum(content), sum(content), len(content))
	})
	mux.HandleFunc("GET /mr/binary/strange/1/binfiles", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"result":[{"architecture":"all","hash":"../../etc/passwd"}]}`)
	})
	mux.HandleFunc("GET /mr/binary/broken/1/binfiles", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") })
	mux.HandleFunc("GET /mr/binary/down/1/binfiles", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) })
	mux.HandleFunc("GET /file/"+sum(content), file)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return &Client{Base: s.URL}
}

func whole(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

func kind(t *testing.T, err error, want backend.Kind) {
	t.Helper()
	if !errors.Is(err, &backend.Error{Kind: want}) {
		t.Errorf("error %v, want kind %q", err, want)
	}
}

func TestDownload(t *testing.T) {
	c := serve(t, whole)
	f, err := c.Find(t.Context(), "linux-source-6.1", "6.1.1-1~x+1", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.deb")
	var done int64
	if err := c.Download(t.Context(), f, path, func(n int64) { done = n }); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) || done != int64(len(content)) {
		t.Errorf("%d bytes, progress %d, %v", len(got), done, err)
	}
}

func TestFindErrors(t *testing.T) {
	c := serve(t, whole)
	for name, want := range map[string]backend.Kind{
		"strange": backend.Corrupt, "broken": backend.Corrupt, "down": backend.Unavailable, "none": backend.NotFound,
	} {
		_, err := c.Find(t.Context(), name, "1", "amd64")
		kind(t, err, want)
	}
	_, err := (&Client{Base: "http://127.0.0.1:1"}).Find(t.Context(), "x", "1", "amd64")
	kind(t, err, backend.Unavailable)
}

// The server goes away in the middle; the next attempt asks only for the rest.
func TestContinues(t *testing.T) {
	var ranges []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) > 1 {
			whole(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:30_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	f := File{SHA1: sum(content), Size: int64(len(content))}
	path := filepath.Join(t.TempDir(), "x.deb")
	kind(t, c.Download(t.Context(), f, path, func(int64) {}), backend.Unavailable)
	if _, err := os.Stat(path); err == nil {
		t.Error("half a file stands under its final name")
	}
	if err := c.Download(t.Context(), f, path, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, content) {
		t.Errorf("%d bytes", len(got))
	}
	if len(ranges) != 2 || ranges[1] != "bytes=30000-" {
		t.Errorf("ranges %q", ranges)
	}
}

func TestWrongContent(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("something else")) })
	path := filepath.Join(t.TempDir(), "x.deb")
	f := File{SHA1: sum(content), Size: int64(len(content))}
	kind(t, c.Download(t.Context(), f, path, func(int64) {}), backend.Corrupt)
	if left, _ := filepath.Glob(path + "*"); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(content[:10])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	err := c.Download(ctx, File{SHA1: sum(content), Size: 80_000}, filepath.Join(t.TempDir(), "x"), func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
