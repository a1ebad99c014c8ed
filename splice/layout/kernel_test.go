// SPDX-License-Identifier: Apache-2.0

package layout

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/upsplice/upsplice/kmod/lab"
	"github.com/upsplice/upsplice/splice/kimage"
	"github.com/upsplice/upsplice/splice/objdiff"
	"github.com/upsplice/upsplice/splice/object"
)

// users are headers with much of what there is in a kernel: bit fields, unions in
// unions, flexible arrays, 64-bit enums.
const users = `
#include <linux/sched.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/skbuff.h>
#include <linux/netdevice.h>
#include <linux/blk-mq.h>
#include <linux/bpf.h>
#include <linux/pci.h>
#include <linux/module.h>
#include <net/sock.h>
#include <net/tcp.h>
struct task_struct task; struct inode inode; struct vm_area_struct vma; struct sk_buff skb; struct net_device dev;
struct request_queue queue; struct request rq; struct bpf_prog prog; struct pci_dev pci; struct module mod; struct tcp_sock tcp;
enum netdev_priv_flags priv; struct page page; struct bio bio; struct super_block sb; struct rq_flags *undeclared;
long live(struct super_block *s, struct sk_buff *b) { kfree(s->s_fs_info); wake_up_process(current); consume_skb(b); return this_cpu_read(softnet_data.processed); }
long bystander(long x) { return x * 3; }
long room(struct sk_buff *skb) { return skb_headroom(skb) + skb_tailroom(skb); }
long block(struct inode *i) { return i_size_read(i) + i_blocksize(i); }
long size(void) { return sizeof(struct sk_buff); }
long sizes(void) { return sizeof(struct { struct super_block one; char two; }); }
long cast(void *p) { return ((struct super_block *)p)->s_fs_info != 0; }
long chain(struct file *f) { return file_inode(f)->i_sb->s_blocksize; }
long list(struct list_head *l) { return list_empty(l); }
long sockets(struct sock *sk) { return sk->sk_receive_queue.qlen + tcp_sk(sk)->snd_nxt; }
void copy(struct sk_buff *a, struct sk_buff *b) { *a = *b; }
void drop(struct sk_buff_head *h) { __skb_queue_purge(h); }
`

// TestShippedKernel holds what the compiler makes of a kernel's headers against
// the types that the kernel ships.
func TestShippedKernel(t *testing.T) {
	t.Run("newest", func(t *testing.T) { shipped(t, lab.NeedNewest(t, lab.Image, lab.Headers)) })
	t.Run("backport", func(t *testing.T) { shipped(t, lab.NeedBackport(t, lab.Cloud, lab.Image, lab.Headers)) })
	t.Run("generic", func(t *testing.T) { shipped(t, lab.NeedBackport(t, lab.Generic, lab.Image, lab.Headers)) })
}

func shipped(t *testing.T, k lab.Kernel) {
	im, err := kimage.OpenFile(k.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := FromBTF(im.BTF())
	if err != nil {
		t.Fatal(err)
	}
	flags := strings.Fields(`-nostdinc -D__KERNEL__ -DKBUILD_MODNAME="users" -DKBUILD_MODFILE="users" -DKBUILD_BASENAME="users"
		-std=gnu11 -fshort-wchar -O2 -mno-sse -mcmodel=kernel -fno-PIE -fno-strict-aliasing -w -mno-red-zone -mfentry -pg -DCC_USING_FENTRY`)
	for _, dir := range [][2]string{
		{"arch/x86/include", "arch/x86/include/generated"},
		{"include", "include"},
		{"arch/x86/include/uapi", "arch/x86/include/generated/uapi"},
		{"include/uapi", "include/generated/uapi"},
	} {
		flags = append(flags, "-I"+filepath.Join(k.CommonDir, dir[0]), "-I"+filepath.Join(k.HeadersDir, dir[1]))
	}
	for _, h := range []string{"compiler-version.h", "kconfig.h", "compiler_types.h"} {
		flags = append(flags, "-include", filepath.Join(k.CommonDir, "include/linux", h))
	}
	object := dwarfOf(t, users, flags...)
	shared := 0
	for name := range object.byName {
		if kernel.byName[name] != nil {
			shared++
		}
	}
	if shared < 700 || shared < len(object.byName)*9/10 {
		t.Errorf("only %d of %d types are in the kernel", shared, len(object.byName))
	}
	for _, d := range Compare(object, kernel) {
		t.Errorf("%s of %s: %s", d.Type, k.Release, d.Detail)
	}

	good := readUnit(t, users, flags...)
	q := Question{Pre: good, Post: good, Running: kernel, Live: []string{"live"}, Changed: []string{}}
	if p, err := Prove(q); err != nil || len(p.Violations) > 0 || p.Compared < 3000 {
		t.Errorf("the headers of %s themselves: %d compared, %v, %v", k.Release, p.Compared, p.Violations, err)
	}

	for _, tt := range []struct{ header, typ string }{{"skbuff.h", "struct sk_buff"}, {"fs.h", "struct super_block"}} {
		b, err := os.ReadFile(filepath.Join(k.CommonDir, "include/linux", tt.header))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "linux"), 0o700); err != nil {
			t.Fatal(err)
		}
		planted := strings.Replace(string(b), "\n"+tt.typ+" {", "\n"+tt.typ+" { char planted;", 1)
		if err := os.WriteFile(filepath.Join(dir, "linux", tt.header), []byte(planted), 0o600); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, d := range Compare(dwarfOf(t, users, append([]string{"-I" + dir}, flags...)...), kernel) {
			found = found || d.Type == tt.typ
		}
		if !found {
			t.Errorf("a new member of %s is not noticed", tt.typ)
		}
		provePlanted(t, tt.typ, kernel, flags, append([]string{"-I" + dir}, flags...))
	}
}

// provePlanted proves all functions of users, compiled with a member that is planted in
// a type. Those that the compiler makes other code of use the type for sure.
func provePlanted(t *testing.T, typ string, kernel *Types, flags, more []string) {
	t.Helper()
	objects := [2]*object.Object{}
	var post *Object
	for i, flags := range [][]string{flags, more} {
		b := compile(t, users, slices.Concat(kernelFlags, []string{AllTypes}, flags)...)
		var err error
		if objects[i], err = object.Read(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
		if post, err = ReadObject(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
	}
	q := Question{Post: post, Running: kernel, Changed: []string{}, Source: func() ([]byte, error) { return preprocess(t, users, more...), nil }}
	for _, list := range post.symbols {
		q.Live = append(q.Live, list...)
	}
	p, err := Prove(q)
	if err != nil || p.SourceErr != nil {
		t.Fatal(err, p)
	}
	if !slices.ContainsFunc(p.Violations, func(v Violation) bool { return v.Name == typ && slices.Contains(v.Functions, "live") }) {
		t.Errorf("a new member of %s is not refused: %v", typ, p.Violations)
	}
	blocked := p.Blocked()
	diff, err := objdiff.Compare(objects[0], objects[1])
	if err != nil {
		t.Fatal(err)
	}
	if len(diff.Functions) < 3 {
		t.Errorf("a new member of %s changes only %d functions", typ, len(diff.Functions))
	}
	for _, f := range diff.Functions {
		if _, ok := blocked[f.Name]; !ok {
			t.Errorf("a new member of %s changes the code of %s, which is not refused", typ, f.Name)
		}
	}
	for _, f := range []string{"bystander", "list"} {
		if v, ok := blocked[f]; ok {
			t.Errorf("%s, which cannot use %s, is refused: %v", f, typ, v)
		}
	}
}
