// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/upsplice/upsplice/plugins/backend"
)

// Download puts the packages into dir under their FileName. Complete files that
// are there already are kept; one that was begun starts over, as apt-get download
// does not continue files. progress gets the bytes of all packages together.
func Download(ctx context.Context, dir string, offers []Offer, progress func(done int64)) error {
	var missing []Offer
	var have, todo int64
	for _, o := range offers {
		ok, err := complete(filepath.Join(dir, o.FileName), o)
		if err != nil {
			return err
		}
		if ok {
			have += o.Size
			continue
		}
		missing = append(missing, o)
		todo += o.Size
	}
	progress(have)
	if len(missing) == 0 {
		return nil
	}
	if err := get(ctx, dir, missing, func(fraction float64) {
		progress(have + int64(fraction*float64(todo)))
	}); err != nil {
		return err
	}
	for _, o := range missing {
		ok, err := complete(filepath.Join(dir, o.FileName), o)
		if err != nil {
			return err
		}
		if !ok {
			return &backend.Error{Kind: backend.Corrupt, What: o.FileName,
				Detail: "it is not what the archive's index says", Remedy: "run apt-get update and try again"}
		}
	}
	progress(have + todo)
	return nil
}

func get(ctx context.Context, dir string, offers []Offer, progress func(float64)) error {
	// Locks protect the cache of installed packages, which is not touched: the
	// files go to the working directory.
	args := []string{"download", "-q", "-o", "Debug::NoLocking=1", "-o", "APT::Status-Fd=3", "-o", "Acquire::Retries=2", "--"}
	for _, o := range offers {
		args = append(args, o.Name+":"+archOf(o)+"="+o.Version)
	}
	cmd := command(ctx, "apt-get", args...)
	cmd.Dir = dir
	errOut := &limitedBuffer{limit: 64 << 10}
	cmd.Stderr = errOut
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("running apt-get download: %w", err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("running apt-get download: %w", err)
	}
	w.Close()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		follow(r, progress)
	}()
	err = cmd.Wait()
	if ctx.Err() == nil {
		<-followed
	}
	r.Close()
	<-followed
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return classify("apt-get download "+names(offers), err, errOut.String())
	}
	return nil
}

// archOf qualifies a name: "all" packages are asked for without an architecture
// by apt's own rules, which "native" also fits.
func archOf(o Offer) string {
	if o.Arch == "all" {
		return "native"
	}
	return o.Arch
}

func names(offers []Offer) string {
	var s []string
	for _, o := range offers {
		s = append(s, o.Name+"="+o.Version)
	}
	return strings.Join(s, " ")
}

// follow reads the lines that apt writes to its status descriptor:
// "dlstatus:NUMBER:PERCENT:TEXT" (apt's README.progress-reporting).
func follow(r io.Reader, progress func(float64)) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.SplitN(s.Text(), ":", 4)
		if len(f) != 4 || f[0] != "dlstatus" {
			continue
		}
		if percent, err := strconv.ParseFloat(f[2], 64); err == nil && percent >= 0 && percent <= 100 {
			progress(percent / 100)
		}
	}
	io.Copy(io.Discard, r)
}

// complete tells whether the file is the package, and removes one of the right
// size or more that is not.
func complete(path string, o Offer) (bool, error) {
	fi, err := os.Stat(path)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("checking %s: %w", path, err)
	}
	if fi.Size() < o.Size {
		return false, nil
	}
	ok := false
	if fi.Size() == o.Size {
		if ok, err = hasSum(path, o.SHA256); err != nil {
			return false, err
		}
	}
	if !ok {
		if err := os.Remove(path); err != nil {
			return false, fmt.Errorf("removing a damaged %s: %w", path, err)
		}
	}
	return ok, nil
}

func hasSum(path, sum string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("checking %s: %w", path, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, fmt.Errorf("checking %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)) == sum, nil
}

// Verify checks a file against its SHA-256, if there is one, and removes a file
// that is not the one. Error kind: Corrupt.
func Verify(path, sum string) error {
	if sum == "" {
		return nil
	}
	ok, err := hasSum(path, sum)
	if err == nil && !ok {
		err = &backend.Error{Kind: backend.Corrupt, What: filepath.Base(path),
			Detail: "it is not what the archive's index says", Remedy: "run apt-get update and try again"}
		os.Remove(path)
	}
	return err
}
