// SPDX-License-Identifier: Apache-2.0

// Package apt reads what apt tells a DPkg::Pre-Install-Pkgs hook, in the
// protocol versions 1, 2 and 3 (apt.conf(5), "DPkg::Pre-Install-Pkgs").
package apt

// Transaction is what dpkg is about to do.
type Transaction struct {
	// Protocol is 1, 2 or 3.
	Protocol int
	// Config is apt's configuration (2 and 3): "Dir::Etc" to its values in
	// order; lists have keys that end in "::".
	Config map[string][]string
	// Lines are the actions in apt's order. A package that is unpacked and
	// configured has two.
	Lines []Line
}

// Action is the last field of a line.
type Action string

const (
	// Unpack: the line has a path.
	Unpack Action = "unpack"
	// Configure is **CONFIGURE**.
	Configure Action = "configure"
	// Remove is **REMOVE**, of a removal and of a purge.
	Remove Action = "remove"
	// Broken is **ERROR**: to be unpacked, but apt has no file for it.
	Broken Action = "error"
)

// Line is one action. Fields that the protocol version does not have are
// empty, and so are those that apt writes as "-" or "none".
type Line struct {
	Name       string
	OldVersion string
	OldArch    string
	OldMulti   string // "same", "foreign", "allowed"
	// Direction compares old with new: '<' is an upgrade or a new package, '='
	// a reinstallation, '>' a downgrade or a removal; 0 in version 1.
	Direction  byte
	NewVersion string
	NewArch    string
	NewMulti   string
	Action     Action
	Path       string // of the package file, with Unpack
}

// Kind is what happens to a package in the end.
type Kind string

const (
	Install       Kind = "install"
	Upgrade       Kind = "upgrade"
	Downgrade     Kind = "downgrade"
	Reinstall     Kind = "reinstall"
	Removal       Kind = "remove"
	ConfigureOnly Kind = "configure-only"
)

// Change is one package with all its lines.
type Change struct {
	Name string
	// Arch is the architecture of the new version, else of the old one; "" in
	// version 2.
	Arch string
	// Old and New are versions. Old is "" for a package that was not there and
	// in version 1; New is "" for a removal.
	Old, New string
	// Path is the package file; "" if none is unpacked or apt has none.
	Path string
	Kind Kind
}

// Changes returns one Change for each package and architecture, in the order of
// their first lines. Version 1 does not tell old versions: its packages are all
// installs.
func (t *Transaction) Changes() []Change {
	type key struct{ name, arch string }
	index := map[key]int{}
	var changes []Change
	var unpacked, removed []bool
	for _, l := range t.Lines {
		arch := l.NewArch
		if arch == "" {
			arch = l.OldArch
		}
		k := key{l.Name, arch}
		i, seen := index[k]
		if !seen {
			i = len(changes)
			index[k] = i
			changes = append(changes, Change{Name: l.Name, Arch: arch, Old: l.OldVersion, New: l.NewVersion})
			unpacked, removed = append(unpacked, false), append(removed, false)
		}
		switch l.Action {
		case Unpack, Broken:
			unpacked[i] = true
			if l.Path != "" {
				changes[i].Path = l.Path
			}
			changes[i].Old, changes[i].New = l.OldVersion, l.NewVersion
			changes[i].Kind = kindOf(l)
		case Remove:
			removed[i] = true
		}
	}
	// A package that is in the way of another is removed first and unpacked
	// later: then the unpacking is what counts.
	for i := range changes {
		switch {
		case unpacked[i]:
		case removed[i]:
			changes[i].Kind, changes[i].New = Removal, ""
		default:
			changes[i].Kind = ConfigureOnly
		}
	}
	return changes
}

func kindOf(l Line) Kind {
	switch {
	case l.OldVersion == "":
		return Install
	case l.Direction == '>':
		return Downgrade
	case l.Direction == '=':
		return Reinstall
	}
	return Upgrade
}
