// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/kmod/modsign"
	"github.com/upsplice/upsplice/kmod/vmtest"
)

func shell(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// signing is a key pair and the configuration that names it, as files of a guest.
func signing(t *testing.T, key, cert string) map[string]string {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "upsplice.toml")
	text := "sign_key = \"/etc/upsplice/sign.key\"\nsign_cert = \"/etc/upsplice/sign.pem\"\ntransition_timeout = \"2m\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"/etc/upsplice/signing.toml": conf, "/etc/upsplice/sign.key": key, "/etc/upsplice/sign.pem": cert}
}

// TestSignaturesAreDemanded: without a key the refusal says what to do, with one the
// kernel reads the signature, and says that it does not know the key.
func TestSignaturesAreDemanded(t *testing.T) {
	from, to := lab.NeedPair(t)
	good := splice(t, from, to)
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key"), filepath.Join(dir, "cert")
	shell(t, "openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "36500", "-subj", "/CN=upsplice test", "-keyout", key, "-out", cert)
	// The same module with a signature that is none, for the contrast.
	module := good.Payload[good.Manifest.Modules[0].Name]
	garbage := slices.Concat(module, []byte(strings.Repeat("x", 256)), []byte{0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0}, []byte(modsign.Marker))
	broken := filepath.Join(dir, "broken.ko")
	if err := os.WriteFile(broken, garbage, 0o644); err != nil {
		t.Fatal(err)
	}
	files := signing(t, key, cert)
	files["/bin/upsplice"] = vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false)
	files["/s/good.splice"] = put(t, dir, "good.splice", good)
	files["/s/broken.ko"] = broken
	const script = expect + `
chown -R 0:0 /etc/upsplice; chmod 600 /etc/upsplice/sign.key
grep -q Y /sys/module/module/parameters/sig_enforce || echo "UNEXPECTED: nothing is enforced"
expect 4 "openssl req .*mokutil --import" upsplice apply /s/good.splice
chmod 644 /etc/upsplice/sign.key
expect 4 "others than root can read it" upsplice --config /etc/upsplice/signing.toml apply /s/good.splice
chmod 600 /etc/upsplice/sign.key; chown 1000 /etc/upsplice/sign.key
expect 4 "does not belong to root" upsplice --config /etc/upsplice/signing.toml apply /s/good.splice
chown 0 /etc/upsplice/sign.key
dmesg -c >/dev/null
# busybox exits with the errno, EBADMSG
expect 74 "Bad message" insmod /s/broken.ko
dmesg | grep "unavailable key" && echo "UNEXPECTED: garbage was taken for a signature"
dmesg -c >/dev/null
expect 4 "mokutil --import" upsplice --config /etc/upsplice/signing.toml apply /s/good.splice
dmesg | grep "Loading of module with unavailable key is rejected" || echo "UNEXPECTED: the kernel did not read the signature"
patches 0
`
	res := vmtest.RunInVM(t, from, script, files, func(m *vmtest.Machine) {
		m.MemoryMB, m.Timeout, m.Append = 1024, 6*time.Minute, "module.sig_enforce=1"
	})
	if err := res.Err(); err != nil || strings.Contains(res.Console, "UNEXPECTED") {
		t.Fatalf("%v\n%s", err, res.Console)
	}
}

// TestSecureBoot boots with Secure Boot, under which the kernel locks itself down,
// with firmware that knows a test key: a splice that is signed with it goes live.
func TestSecureBoot(t *testing.T) {
	from, to := lab.NeedPair(t)
	const ovmf, pass = "/usr/share/OVMF/", "snakeoil" // passphrase: the README of the package ovmf
	const pem = "/usr/share/ovmf/PkKek-1-snakeoil"
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	shell(t, "openssl", "pkey", "-in", pem+".key", "-passin", "pass:"+pass, "-out", path("key"))
	shell(t, "openssl", "x509", "-in", pem+".pem", "-out", path("cert"))
	shell(t, "sbsign", "--key", path("key"), "--cert", path("cert"), "--output", path("vmlinuz"), from.Vmlinuz)
	shell(t, "cp", ovmf+"OVMF_VARS_4M.snakeoil.fd", path("vars"))
	files := signing(t, path("key"), path("cert"))
	files["/bin/upsplice"] = vmtest.BuildStatic(t, "github.com/upsplice/upsplice/hook/upsplice", false)
	files["/s/good.splice"] = put(t, dir, "good.splice", splice(t, from, to))
	const script = expect + `
chown -R 0:0 /etc/upsplice; chmod 600 /etc/upsplice/sign.key
grep "\[integrity\]" /sys/kernel/security/lockdown || echo "UNEXPECTED: no lockdown: $(cat /sys/kernel/security/lockdown)"
expect 4 "lockdown is integrity.*mokutil --import" upsplice apply /s/good.splice
patches 0
expect 0 "is live" upsplice --config /etc/upsplice/signing.toml apply /s/good.splice
patches 1
expect 0 "is undone" upsplice --config /etc/upsplice/signing.toml undo
patches 0
# TAINT_UNSIGNED_MODULE is bit 13.
[ $(($(cat /proc/sys/kernel/tainted) & 8192)) = 0 ] || echo "UNEXPECTED: the kernel took the module for an unsigned one"
`
	res := vmtest.RunInVM(t, from, script, files, func(m *vmtest.Machine) {
		m.Kernel = path("vmlinuz")
		m.Firmware = []string{ovmf + "OVMF_CODE_4M.fd", path("vars")}
		m.MemoryMB, m.Timeout = 1024, 8*time.Minute
	})
	if err := res.Err(); err != nil || strings.Contains(res.Console, "UNEXPECTED") {
		t.Fatalf("%v\n%s", err, res.Console)
	}
}
