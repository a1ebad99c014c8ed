// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/upsplice/upsplice/kmod/identity"
	"github.com/upsplice/upsplice/kmod/kallsyms"
	"github.com/upsplice/upsplice/kmod/kcore"
)

func run(root fs.FS) Kernel {
	var k Kernel
	if rel, err := readLine(root, "proc/sys/kernel/osrelease"); err == nil {
		k.Release = rel
	}
	if id, err := identity.Kernel(root); err == nil {
		k.BuildID = id
	}
	conf := readConfig(root, k.Release)
	k.Livepatch = livepatch(root, conf)
	k.UnsignedModule = unsignedModule(root, conf)
	k.SignedModule = modulesDisabled(root, conf)
	k.Kallsyms = symbols(root)
	k.Kcore = memory(root)
	return k
}

const noLivepatch = "boot a kernel that is built with CONFIG_LIVEPATCH; Debian's amd64 kernels are"

// livepatch: the directory in sysfs exists exactly if the kernel has CONFIG_LIVEPATCH.
func livepatch(root fs.FS, conf config) Finding {
	if _, err := fs.Stat(root, "sys/kernel/livepatch"); err == nil {
		return Finding{Answer: Yes, Detail: "/sys/kernel/livepatch is there"}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Finding{Detail: err.Error()}
	}
	_, err := fs.Stat(root, "sys/kernel/notes")
	sysfs := err == nil
	set, known := conf.isSet("CONFIG_LIVEPATCH")
	switch {
	case known && set:
		// A container, or a sysfs that is not mounted.
		return Finding{Detail: conf.name + " has CONFIG_LIVEPATCH, but /sys/kernel/livepatch is not to be seen", Remedy: "mount sysfs on /sys, and run outside of containers"}
	case known:
		return Finding{Answer: No, Detail: conf.name + " has no CONFIG_LIVEPATCH", Remedy: noLivepatch}
	case sysfs:
		return Finding{Answer: No, Detail: "/sys/kernel/livepatch does not exist", Remedy: noLivepatch}
	}
	return Finding{Detail: "neither /sys/kernel nor the kernel's configuration can be read", Remedy: "mount sysfs on /sys"}
}

// unsignedModule joins everything that can keep the kernel from loading a module
// that nobody signed. One "no" decides; one "don't know" keeps the answer open.
func unsignedModule(root fs.FS, conf config) Finding {
	f := Finding{Answer: Yes, Detail: "no lockdown, signatures are not enforced"}
	for _, check := range []func(fs.FS, config) Finding{modulesDisabled, lockdown, sigEnforce} {
		switch c := check(root, conf); {
		case c.Answer == No:
			return c
		case c.Answer == Unknown && f.Answer == Yes:
			f = c
		}
	}
	return f
}

func modulesDisabled(root fs.FS, _ config) Finding {
	switch v, err := readLine(root, "proc/sys/kernel/modules_disabled"); {
	case err == nil && v == "0":
		return Finding{Answer: Yes, Detail: "kernel.modules_disabled is 0"}
	case err == nil && v == "1":
		return Finding{Answer: No, Detail: "kernel.modules_disabled is 1", Remedy: "it cannot be taken back before the next boot; remove it from sysctl.d"}
	case err == nil:
		return Finding{Detail: "/proc/sys/kernel/modules_disabled holds " + quote(v)}
	case !errors.Is(err, fs.ErrNotExist):
		return Finding{Detail: err.Error()}
	}
	// The sysctl exists in every kernel that can load modules.
	if _, err := fs.Stat(root, "proc/sys/kernel/osrelease"); err == nil {
		return Finding{Answer: No, Detail: "the kernel cannot load modules", Remedy: "boot a kernel that is built with CONFIG_MODULES"}
	}
	return Finding{Detail: "/proc/sys/kernel cannot be read", Remedy: "mount proc on /proc"}
}

// EnrolKey is how a machine comes to trust modules that upsplice signs.
const EnrolKey = "make a key (openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj '/CN=upsplice on this machine' " +
	"-keyout /etc/upsplice/sign.key -out /etc/upsplice/sign.pem), convert the certificate (openssl x509 -in /etc/upsplice/sign.pem " +
	"-outform DER -out /etc/upsplice/sign.der), enrol it (mokutil --import /etc/upsplice/sign.der, then reboot and confirm it to the " +
	"MOK manager at the console), and name the two files as sign_key and sign_cert in /etc/upsplice/upsplice.toml"

// lockdown reads "[none] integrity confidentiality" (Documentation of
// kernel_lockdown(7)); the mode in force stands in brackets.
func lockdown(root fs.FS, _ config) Finding {
	v, err := readLine(root, "sys/kernel/security/lockdown")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Each kernel with securityfs has the file lsm in it.
		if _, err := fs.Stat(root, "sys/kernel/security/lsm"); err == nil {
			return Finding{Answer: Yes}
		}
		return Finding{Detail: "/sys/kernel/security cannot be read, so kernel lockdown is not known", Remedy: "mount securityfs on /sys/kernel/security"}
	case err != nil:
		return Finding{Detail: err.Error()}
	}
	_, rest, _ := strings.Cut(v, "[")
	mode, _, ok := strings.Cut(rest, "]")
	switch {
	case ok && mode == "none":
		return Finding{Answer: Yes}
	case ok && (mode == "integrity" || mode == "confidentiality"):
		return Finding{Answer: No, Detail: "kernel lockdown is " + mode, Remedy: "lockdown comes from Secure Boot or from lockdown= on the kernel command line, and wants signed modules: " + EnrolKey}
	}
	return Finding{Detail: "/sys/kernel/security/lockdown holds " + quote(v)}
}

func sigEnforce(root fs.FS, conf config) Finding {
	const remedy = "module.sig_enforce comes from the kernel command line, and wants signed modules: " + EnrolKey
	v, err := readLine(root, "sys/module/module/parameters/sig_enforce")
	switch {
	case err == nil && v == "N":
		return Finding{Answer: Yes}
	case err == nil && v == "Y":
		return Finding{Answer: No, Detail: "module.sig_enforce is on", Remedy: remedy}
	case err == nil:
		return Finding{Detail: "/sys/module/module/parameters/sig_enforce holds " + quote(v)}
	case !errors.Is(err, fs.ErrNotExist):
		return Finding{Detail: err.Error()}
	}
	if _, err := fs.Stat(root, "sys/module"); err == nil {
		// The parameter exists in every kernel that can check signatures.
		return Finding{Answer: Yes}
	}
	if set, known := conf.isSet("CONFIG_MODULE_SIG"); known && !set {
		return Finding{Answer: Yes}
	}
	return Finding{Detail: "/sys/module cannot be read, so module.sig_enforce is not known", Remedy: "mount sysfs on /sys"}
}

func symbols(root fs.FS) Finding {
	f, err := root.Open("proc/kallsyms")
	if err != nil {
		return Finding{Answer: absent(root, err), Detail: err.Error()}
	}
	defer f.Close()
	var restricted *kallsyms.RestrictedError
	switch err := kallsyms.Shown(f); {
	case err == nil:
		return Finding{Answer: Yes, Detail: "/proc/kallsyms shows addresses"}
	case errors.As(err, &restricted):
		return Finding{Answer: No, Detail: "/proc/kallsyms hides addresses", Remedy: "run as root, and set kernel.kptr_restrict to 1 or 0"}
	default:
		return Finding{Detail: err.Error()}
	}
}

func memory(root fs.FS) Finding {
	c, err := kcore.Open(root)
	var denied *kcore.AccessError
	switch {
	case errors.As(err, &denied):
		return Finding{Answer: No, Detail: denied.Err.Error(), Remedy: denied.Remedy}
	case err != nil:
		return Finding{Answer: absent(root, err), Detail: err.Error()}
	}
	defer c.Close()
	text, ok := c.Text()
	if !ok {
		return Finding{Answer: No, Detail: "/proc/kcore does not show the kernel's text"}
	}
	if _, err := c.ReadAt(make([]byte, min(16, text.Size)), int64(text.Addr)); err != nil {
		return Finding{Detail: err.Error()}
	}
	return Finding{Answer: Yes, Detail: "/proc/kcore shows the kernel's text"}
}

// absent is No for a file that is not there although proc is mounted.
func absent(root fs.FS, err error) Answer {
	if !errors.Is(err, fs.ErrNotExist) {
		return Unknown
	}
	if _, err := fs.Stat(root, "proc/sys/kernel/osrelease"); err != nil {
		return Unknown
	}
	return No
}

// readLine reads a small file of proc or sysfs without its newline.
func readLine(root fs.FS, name string) (string, error) {
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("reading /%s: %w", name, err)
	}
	return strings.TrimRight(string(data), "\n"), nil
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
