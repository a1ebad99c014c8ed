// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"sync"
	"testing"
)

// NeedNewest fetches the newest kernel of the distribution's series for a test. A
// test that cannot have its kernel fails: a skip would hide that nothing was tested.
func NeedNewest(t testing.TB, parts ...Part) Kernel {
	t.Helper()
	k, err := Newest(t.Context())
	if err == nil {
		err = Fetch(t.Context(), &k, parts...)
	}
	if err != nil {
		t.Fatalf("this test needs the newest cloud-amd64 kernel: %v", err)
	}
	return k
}

// NeedBackport fetches the kernel that Backport returns for a test, see NeedNewest.
func NeedBackport(t testing.TB, flavour string, parts ...Part) Kernel {
	t.Helper()
	k, err := Backport(t.Context(), flavour)
	if err == nil {
		err = Fetch(t.Context(), &k, parts...)
	}
	if err != nil {
		t.Fatalf("this test needs an %s kernel of a newer series: %v", flavour, err)
	}
	return k
}

// pairOnce: the answer does not change while a test binary runs, and apt takes a second.
var pairOnce = sync.OnceValues(func() ([2]Kernel, error) {
	from, to, err := SmallPair(context.Background())
	return [2]Kernel{from, to}, err
})

// NeedPair fetches the pair of SmallPair for a test, see NeedNewest.
func NeedPair(t testing.TB, parts ...Part) (from, to Kernel) {
	t.Helper()
	pair, err := pairOnce()
	if err != nil {
		t.Fatalf("this test needs two adjacent cloud-amd64 kernels: %v", err)
	}
	for i := range pair {
		if err := Fetch(t.Context(), &pair[i], parts...); err != nil {
			t.Fatalf("this test needs %s: %v", pair[i], err)
		}
	}
	return pair[0], pair[1]
}
