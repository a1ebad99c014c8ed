// SPDX-License-Identifier: Apache-2.0

// Package apt asks apt what the configured archives offer and has it download
// packages, without installing and without root. apt verifies what it downloads
// against the archives' signatures.
package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/upsplice/upsplice/distro/deb822"
	"github.com/upsplice/upsplice/plugins/backend"
)

// Offer is a package in one version that an archive offers.
type Offer struct {
	Name     string
	Version  string
	Arch     string
	Size     int64 // bytes
	SHA256   string
	Control  deb822.Paragraph
	FileName string // as apt names it in a directory: colons of the version are escaped
}

// maxOutput limits what is kept of apt's output, in bytes.
const maxOutput = 32 << 20

// foreign are variables of whoever started us that must not reach apt: a package
// manager's lock is not ours, nor is its hook's file descriptor.
var foreign = []string{"DPKG_", "APT_HOOK", "PLUGIN_", backend.Handshake.MagicCookieKey + "=", "LANG=", "LC_", "LANGUAGE="}

func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return slices.ContainsFunc(foreign, func(p string) bool { return strings.HasPrefix(kv, p) })
	})
	// Its messages are told apart by their text.
	cmd.Env = append(cmd.Env, "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	// apt stops its download methods when it is asked to end, not when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd
}

// Names returns the names of all packages that start with prefix.
func Names(ctx context.Context, prefix string) ([]string, error) {
	out, err := run(ctx, "apt-cache", "pkgnames", "--", prefix)
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

// Offers returns what the archives offer under the given names, all versions of
// each. A name may have "=VERSION". Names that nobody offers are not in the result.
func Offers(ctx context.Context, names ...string) ([]Offer, error) {
	if len(names) == 0 {
		return nil, nil
	}
	out, err := run(ctx, "apt-cache", append([]string{"show", "--"}, names...)...)
	if errors.Is(err, &backend.Error{Kind: backend.NotFound}) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseOffers(bytes.NewReader(out))
}

func parseOffers(r io.Reader) ([]Offer, error) {
	var offers []Offer
	d := deb822.NewReader(r)
	for {
		p, err := d.Next()
		if err == io.EOF {
			return offers, nil
		}
		if err != nil {
			return nil, &backend.Error{Kind: backend.Internal, What: "apt-cache show", Detail: err.Error()}
		}
		// What is only installed has no file in an archive.
		if p.Get("Filename") == "" {
			continue
		}
		size, err := strconv.ParseInt(p.Get("Size"), 10, 64)
		if err != nil || size < 0 {
			continue
		}
		o := Offer{Name: p.Get("Package"), Version: p.Get("Version"), Arch: p.Get("Architecture"),
			Size: size, SHA256: p.Get("SHA256"), Control: p}
		o.FileName = FileName(o.Name, o.Version, o.Arch)
		offers = append(offers, o)
	}
}

// FileName is how apt calls a downloaded package.
func FileName(name, version, arch string) string {
	return name + "_" + strings.ReplaceAll(version, ":", "%3a") + "_" + arch + ".deb"
}

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := command(ctx, name, args...)
	out := &limitedBuffer{limit: maxOutput}
	errOut := &limitedBuffer{limit: maxOutput}
	cmd.Stdout, cmd.Stderr = out, errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, classify(strings.Join(append([]string{name}, shorten(args)...), " "), err, errOut.String())
	}
	if out.over {
		return nil, &backend.Error{Kind: backend.Internal, What: name, Detail: fmt.Sprintf("it printed more than %d bytes", maxOutput)}
	}
	return out.Bytes(), nil
}

func shorten(args []string) []string {
	if len(args) > 4 {
		return append(slices.Clone(args[:4]), "...")
	}
	return args
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct {
	bytes.Buffer
	limit int
	over  bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); len(p) > room {
		b.over = true
		b.Buffer.Write(p[:room])
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
