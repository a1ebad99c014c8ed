// SPDX-License-Identifier: Apache-2.0

package modsign

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
)

// key makes a key pair with openssl as the remedies tell people to.
func key(t *testing.T, args ...string) (keyPath, certPath string) {
	t.Helper()
	dir := t.TempDir()
	keyPath, certPath = filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	if len(args) == 0 {
		args = []string{"-newkey", "rsa:2048"}
	}
	openssl(t, append(append([]string{"req", "-new", "-x509", "-nodes", "-days", "36500", "-subj", "/CN=upsplice test"}, args...),
		"-keyout", keyPath, "-out", certPath)...)
	if err := os.Chmod(keyPath, 0o600); err != nil {
		t.Fatal(err)
	}
	return keyPath, certPath
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func me() uint32 { return uint32(os.Getuid()) }

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var payload = []byte("\x7fELF and so on, not that it matters")

// TestSign lets OpenSSL, which the kernel's own tool uses, verify the message.
func TestSign(t *testing.T) {
	for name, args := range map[string][]string{
		"rsa":       nil,
		"rsa 4096":  {"-newkey", "rsa:4096"},
		"ecdsa 256": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"},
		"ecdsa 384": {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"},
	} {
		t.Run(name, func(t *testing.T) {
			keyPath, certPath := key(t, args...)
			s, err := load(keyPath, certPath, me())
			if err != nil {
				t.Fatal(err)
			}
			signed, err := s.Sign(payload)
			if err != nil {
				t.Fatal(err)
			}
			module, message, err := Split(signed)
			if err != nil || !bytes.Equal(module, payload) {
				t.Fatalf("Split: %v, %q", err, module)
			}
			sig := write(t, "sig", message)
			openssl(t, "cms", "-verify", "-binary", "-inform", "DER", "-in", sig, "-content", write(t, "module", module),
				"-certfile", certPath, "-CAfile", certPath, "-purpose", "any", "-out", "/dev/null")
			text := openssl(t, "cms", "-cmsout", "-print", "-inform", "DER", "-in", sig)
			for _, want := range []string{"eContent: <ABSENT>", "signedAttrs:\n          <ABSENT>", "unsignedAttrs:\n          <ABSENT>", "sha256", "serialNumber"} {
				if !strings.Contains(text, want) {
					t.Errorf("the message does not say %q:\n%s", want, text)
				}
			}
			other := append(bytes.Clone(module), 'x')
			if out, err := exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", sig, "-content", write(t, "module", other),
				"-certfile", certPath, "-CAfile", certPath, "-purpose", "any", "-out", "/dev/null").CombinedOutput(); err == nil {
				t.Errorf("another module was verified: %s", out)
			}
			if _, err := s.Sign(signed); err == nil {
				t.Error("a signed module was signed again")
			}
			again, err := s.Sign(payload)
			if err != nil || strings.HasPrefix(name, "rsa") != bytes.Equal(signed, again) {
				t.Errorf("signed twice, the same %v: %v", bytes.Equal(signed, again), err)
			}
		})
	}
}

// TestAsSignFile compares with what the kernel's own tool makes.
func TestAsSignFile(t *testing.T) {
	k := lab.NeedNewest(t, lab.Headers)
	tool := filepath.Join(k.KbuildDir, "scripts/sign-file")
	keyPath, certPath := key(t)
	s, err := load(keyPath, certPath, me())
	if err != nil {
		t.Fatal(err)
	}
	ours, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	module := write(t, "module", payload)
	if out, err := exec.Command(tool, "sha256", keyPath, certPath, module).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	theirs, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours, theirs) {
		_, a, err := Split(ours)
		_, b, err2 := Split(theirs)
		t.Errorf("%v, %v\n%s\n%s", err, err2, openssl(t, "asn1parse", "-inform", "DER", "-in", write(t, "sig", a)), openssl(t, "asn1parse", "-inform", "DER", "-in", write(t, "sig", b)))
	}
}

func TestLoadRefuses(t *testing.T) {
	keyPath, certPath := key(t)
	otherKey, otherCert := key(t)
	var untrusted *UntrustedFileError
	for name, c := range map[string]struct {
		key, cert string
		mode      os.FileMode // of the key, unless 0
		certMode  os.FileMode
		owner     uint32
		want      string
		untrusted bool
	}{
		"all well":                    {key: keyPath, cert: certPath, owner: me()},
		"another's":                   {key: keyPath, cert: certPath, owner: me() + 1, want: "does not belong to root", untrusted: true},
		"key readable by a group":     {key: keyPath, cert: certPath, mode: 0o640, owner: me(), want: "can read it", untrusted: true},
		"key writable by all":         {key: keyPath, cert: certPath, mode: 0o602, owner: me(), want: "can write", untrusted: true},
		"certificate writable by all": {key: keyPath, cert: certPath, certMode: 0o646, owner: me(), want: "can write", untrusted: true},
		"a directory":                 {key: t.TempDir(), cert: certPath, owner: me(), want: "not a regular file", untrusted: true},
		"nothing":                     {key: keyPath + "x", cert: certPath, owner: me(), want: "no such file"},
		"certificate of another key":  {key: keyPath, cert: otherCert, owner: me(), want: "not that of the key"},
		"swapped":                     {key: otherCert, cert: otherKey, mode: 0o600, owner: me(), want: "no private key"},
		"encrypted": {key: func() string {
			p := filepath.Join(t.TempDir(), "key.pem")
			openssl(t, "pkey", "-in", keyPath, "-aes128", "-passout", "pass:x", "-out", p)
			return p
		}(), mode: 0o600, cert: certPath, owner: me(), want: "encrypted"},
		"weak": {key: func() string { k, _ := key(t, "-newkey", "rsa:1024"); return k }(), cert: certPath, owner: me(), want: "too weak"},
		"kind": {key: func() string { k, _ := key(t, "-newkey", "ed25519"); return k }(), cert: certPath, owner: me(), want: "kernels verify RSA"},
	} {
		for path, mode := range map[string]os.FileMode{c.key: c.mode, c.cert: c.certMode} {
			if mode != 0 {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, err := load(c.key, c.cert, c.owner)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || errors.As(err, &untrusted) != c.untrusted {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if c.mode != 0 || c.certMode != 0 {
			if err := errors.Join(os.Chmod(c.key, 0o600), os.Chmod(c.cert, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("module" + "sig" + "\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x03" + Marker))
	f.Add([]byte("module" + "sig" + "\x00\x00\x02\x00\x00\x00\x00\x00\xff\xff\xff\xff" + Marker))
	f.Fuzz(func(t *testing.T, in []byte) {
		module, message, err := Split(in)
		if err == nil && len(module)+len(message)+infoSize+len(Marker) != len(in) {
			t.Errorf("%d and %d bytes of %d", len(module), len(message), len(in))
		}
	})
}

func FuzzKeyAndCertificate(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if k, err := parseKey(in); err == nil && k == nil {
			t.Error("no key and no error")
		}
		if c, err := parseCert(in); err == nil && c == nil {
			t.Error("no certificate and no error")
		}
	})
}
