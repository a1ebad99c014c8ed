// SPDX-License-Identifier: Apache-2.0

// Package config reads /etc/upsplice/upsplice.toml.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/upsplice/upsplice/hook/outcome"
	"github.com/upsplice/upsplice/splice/policy"
)

// DefaultPath is where the file is.
const DefaultPath = "/etc/upsplice/upsplice.toml"

// A configuration is a page of text; anything larger is not one.
const maxSize = 1 << 20

// Config is the content of the file. The doc tag is the comment in Example.
type Config struct {
	Enabled           bool          `toml:"enabled" doc:"Whether a kernel update starts a splice at all. With false, the verbs still work by hand."`
	Policy            Policy        `toml:"policy" doc:"What of an update goes live by itself. \"all\": whatever can safely. \"fixes\": changes of existing code only; what brings a new file, exported symbol, module parameter or device id waits for the next boot. The changelog does not decide that: its CVE ids are given late and name no code. \"off\": nothing; an update is only announced."`
	Allow             []string      `toml:"allow" doc:"If not empty, only changes that match one of these patterns go live. A pattern is a file or directory of the kernel source (\"fs/ext4\", \"drivers/*\"), a function behind a colon (\":do_exit\"), or both (\"fs/*:ext4_*\"). Changes that belong together go live only if each of them is allowed."`
	Deny              []string      `toml:"deny" doc:"Changes that match one of these patterns, and those that belong together with them, wait for the next boot, even if they are allowed."`
	Modules           Modules       `toml:"modules" doc:"Which modules are examined beside the kernel itself. \"installed\": all, so that one that is loaded later has its fixes at once. \"loaded\": those loaded when the splice is built, which is faster; another one is as old as the booted kernel until the next update or boot."`
	DryRun            bool          `toml:"dry_run" doc:"Build splices of updates and say what would be live, but load nothing."`
	Wait              time.Duration `toml:"wait" doc:"How long apt waits on a terminal for the result, at its end. \"0s\": not at all. The work goes on either way."`
	TransitionTimeout time.Duration `toml:"transition_timeout" doc:"How long all tasks may take to switch to the new code before it is taken back."`
	Cache             string        `toml:"cache" doc:"Where sources and prepared kernels are kept. May be deleted at any time; holds what the last update needed, about 2 GB."`
	Jobs              int           `toml:"jobs" doc:"How many compilers run at once. 0: one for each processor."`
	Snapshot          string        `toml:"snapshot" doc:"An archive (http or https) that keeps old package versions, asked for what the mirrors have dropped. Empty: none."`
	BuildUser         string        `toml:"build_user" doc:"The unprivileged user that parses and compiles what was downloaded."`
	SignKey           string        `toml:"sign_key" doc:"A private key (PEM, readable by root only) to sign splices with at the moment they are applied, for kernels that demand signed modules. Empty: do not sign."`
	SignCert          string        `toml:"sign_cert" doc:"The certificate of sign_key, which the kernel must know: enrol it with mokutil --import."`
	Backend           string        `toml:"backend" doc:"The backend for this distribution. Empty: the one that serves the ID in os-release."`
}

// Policy is what of an update goes live by itself.
type Policy string

// Policies.
const (
	All   Policy = "all"
	Fixes Policy = "fixes" // changes of existing code, see splice/policy.Addition
	Off   Policy = "off"
)

// Modules says which modules an update is examined for.
type Modules string

// Choices of modules.
const (
	Loaded    Modules = "loaded"
	Installed Modules = "installed"
)

// Default returns the configuration of a machine without the file.
func Default() Config {
	return Config{
		Enabled:           true,
		Policy:            All,
		Allow:             []string{},
		Deny:              []string{},
		Modules:           Installed,
		Wait:              10 * time.Minute,
		TransitionTimeout: time.Minute,
		Cache:             "/var/cache/upsplice",
		BuildUser:         "_upsplice",
	}
}

// Load reads the file at path; without one, it returns Default. Every other
// error is an *outcome.Error: Usage for a wrong file, Failed for one that
// cannot be read.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return Config{}, &outcome.Error{Outcome: outcome.Failed, What: "reading the configuration", Err: err}
	}
	defer f.Close()
	c, err := Parse(f)
	if err != nil {
		return Config{}, &outcome.Error{Outcome: outcome.Usage, What: "reading " + path, Err: err}
	}
	return c, nil
}

// UnknownKeysError names keys that upsplice does not have. They are refused
// rather than skipped: a misspelt key would otherwise be a setting that has
// silently no effect.
type UnknownKeysError struct {
	Unknown, Known []string
}

func (e *UnknownKeysError) Error() string {
	what := "unknown key "
	if len(e.Unknown) > 1 {
		what = "unknown keys "
	}
	return what + strings.Join(e.Unknown, ", ") + " (known: " + strings.Join(e.Known, ", ") + ")"
}

// Parse reads a configuration; what it does not set stays as in Default.
func Parse(r io.Reader) (Config, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return Config{}, err
	}
	if len(text) > maxSize {
		return Config{}, fmt.Errorf("larger than %d bytes", maxSize)
	}
	c := Default()
	md, err := toml.Decode(string(text), &c)
	if err != nil {
		if pe, ok := errors.AsType[toml.ParseError](err); ok {
			return Config{}, fmt.Errorf("line %d: %s", pe.Position.Line, parseMessage(pe))
		}
		return Config{}, err
	}
	if unknown := unknownKeys(md); len(unknown) > 0 {
		return Config{}, &UnknownKeysError{Unknown: unknown, Known: Keys()}
	}
	// The library takes a number as nanoseconds, which nobody means.
	for f := range reflect.TypeFor[Config]().Fields() {
		key := f.Tag.Get("toml")
		if f.Type == reflect.TypeFor[time.Duration]() && md.IsDefined(key) && md.Type(key) != "String" {
			return Config{}, fmt.Errorf("%s is a number without a unit: write \"10m\", \"30s\"", key)
		}
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// parseMessage is the message of pe without its own position: Error repeats
// the line and has the library's prefix.
func parseMessage(pe toml.ParseError) string {
	if pe.Message != "" {
		return pe.Message
	}
	msg := strings.TrimPrefix(pe.Error(), "toml: ")
	if _, after, ok := strings.Cut(msg, ": "); ok && strings.HasPrefix(msg, "line ") {
		return after
	}
	return msg
}

func unknownKeys(md toml.MetaData) []string {
	var unknown []string
	known := Keys()
	// The library matches keys to fields without regard to case; a key that is
	// spelt differently from the documentation is unknown all the same.
	for _, k := range md.Keys() {
		if !slices.Contains(known, k.String()) {
			unknown = append(unknown, k.String())
		}
	}
	return unknown
}

// Keys returns the names of all keys, in the order of the example.
func Keys() []string {
	var keys []string
	for f := range reflect.TypeFor[Config]().Fields() {
		keys = append(keys, f.Tag.Get("toml"))
	}
	return keys
}

var (
	// What useradd accepts as a name, and no more: it is looked up as root.
	userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	// A backend's name is a file name in the backend directory.
	backendName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
)

func (c Config) check() error {
	switch {
	case c.Policy != All && c.Policy != Fixes && c.Policy != Off:
		return fmt.Errorf("policy is %q, must be %q, %q or %q", string(c.Policy), All, Fixes, Off)
	case c.Modules != Loaded && c.Modules != Installed:
		return fmt.Errorf("modules is %q, must be %q or %q", string(c.Modules), Loaded, Installed)
	case c.Wait < 0:
		return fmt.Errorf("wait is %s, must not be negative", c.Wait)
	case c.TransitionTimeout <= 0:
		return fmt.Errorf("transition_timeout is %s, must be positive", c.TransitionTimeout)
	case !filepath.IsAbs(c.Cache) || filepath.Clean(c.Cache) == "/":
		return fmt.Errorf("cache is %q, must be an absolute path below /", c.Cache)
	case c.Jobs < 0:
		return fmt.Errorf("jobs is %d, must not be negative", c.Jobs)
	case c.BuildUser == "root":
		return errors.New("build_user is root: what was downloaded is never parsed as root; name an unprivileged user")
	case !userName.MatchString(c.BuildUser):
		return fmt.Errorf("build_user %q is not a user name", c.BuildUser)
	case c.Backend != "" && !backendName.MatchString(c.Backend):
		return fmt.Errorf("backend %q is not a name of lower case letters, digits and hyphens", c.Backend)
	}
	for _, list := range []struct {
		key      string
		patterns []string
	}{{"allow", c.Allow}, {"deny", c.Deny}} {
		if _, err := policy.New(list.patterns, nil); err != nil {
			return fmt.Errorf("%s: %w; patterns look like \"fs/ext4\", \"drivers/*\", \":do_exit\" or \"fs/*:ext4_*\"", list.key, err)
		}
	}
	if (c.SignKey == "") != (c.SignCert == "") {
		return errors.New("sign_key and sign_cert go together: set both or neither")
	}
	for key, path := range map[string]string{"sign_key": c.SignKey, "sign_cert": c.SignCert} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("%s is %q, must be an absolute path", key, path)
		}
	}
	if c.Snapshot != "" {
		u, err := url.Parse(c.Snapshot)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return fmt.Errorf("snapshot %q is not an http or https address", c.Snapshot)
		}
	}
	return nil
}

// Example returns a file that sets every key to its default and says what the
// key is for. Parse(Example()) is Default().
func Example() string {
	var b strings.Builder
	b.WriteString("# Configuration of upsplice. Each key is shown with its default.\n")
	def := reflect.ValueOf(Default())
	for f, v := range def.Fields() {
		fmt.Fprintf(&b, "\n%s%s = %s\n", wrap(f.Tag.Get("doc")), f.Tag.Get("toml"), literal(v))
	}
	return b.String()
}

func literal(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return fmt.Sprintf("%q", shortDuration(x))
	}
	switch v.Kind() {
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Slice:
		return "[]"
	default:
		return fmt.Sprint(v.Interface())
	}
}

// shortDuration drops the zero seconds that Duration.String keeps: "10m0s".
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// wrap makes comment lines of at most 78 columns.
func wrap(text string) string {
	var b strings.Builder
	col := 0
	for _, w := range strings.Fields(text) {
		if col > 0 && col+1+len(w) > 78 {
			b.WriteByte('\n')
			col = 0
		}
		if col == 0 {
			b.WriteByte('#')
			col = 1
		}
		b.WriteString(" " + w)
		col += 1 + len(w)
	}
	b.WriteByte('\n')
	return b.String()
}
