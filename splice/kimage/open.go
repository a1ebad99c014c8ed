// SPDX-License-Identifier: Apache-2.0

package kimage

import (
	"errors"
	"io"
	"strings"
	"sync"
)

func open(r io.ReaderAt, size int64) (*Image, error) {
	vmlinux, err := payload(r, size)
	if err != nil {
		return nil, err
	}
	im := &Image{Name: VmlinuxName, Vmlinux: vmlinux}
	im.lay = sync.OnceValues(im.layouts)
	end, err := im.readSections()
	if err != nil {
		return nil, err
	}
	if im.Slid, err = readSlid(vmlinux[end:]); err != nil {
		return nil, err
	}
	if err := im.readSymbols(); err != nil {
		return nil, err
	}
	im.thunks = sync.OnceValue(im.readThunks)
	if err := im.readIdentity(); err != nil {
		return nil, err
	}
	l, err := im.lay()
	if err != nil {
		return nil, err
	}
	if err := im.readExports(l); err != nil {
		return nil, err
	}
	if err := im.readSites(l); err != nil {
		return nil, err
	}
	return im, nil
}

// readIdentity reads what says which kernel this is.
func (im *Image) readIdentity() error {
	const start = "Linux version "
	for _, s := range im.lookup("linux_banner") {
		im.Banner = strings.TrimSuffix(im.cstring(s.Addr), "\n")
	}
	rest, ok := strings.CutPrefix(im.Banner, start)
	if !ok {
		return errors.New("reading vmlinux: linux_banner does not start with \"Linux version\"")
	}
	im.Release, _, _ = strings.Cut(rest, " ")
	if s := im.section(".notes"); s != nil {
		im.BuildID = buildID(s.Data)
	}
	if im.BuildID == "" {
		return errors.New("reading vmlinux: there is no GNU build id in .notes")
	}
	return nil
}
