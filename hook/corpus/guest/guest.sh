# SPDX-License-Identifier: Apache-2.0
# Functions for the exercises of corpus.toml; sourced by a busybox sh in the guest.

mkdir -p /tmp/m /root
ifconfig lo up 127.0.0.1 2>/dev/null

tcp() { poke tcp; }

# mkext: an empty file system for the ext4 driver in /tmp/ext
mkext() {
	modprobe loop
	dd if=/dev/zero of=/tmp/ext bs=1M count=4 2>/dev/null && mke2fs -F /tmp/ext >/dev/null
}

# fat TYPE: files come and go on a file system of this type
fat() {
	modprobe loop && modprobe "$1" && { modprobe nls_cp437; modprobe nls_ascii; modprobe nls_utf8; true; }
	dd if=/dev/zero of=/tmp/fat bs=1M count=4 2>/dev/null && mkdosfs /tmp/fat >/dev/null || return
	mount -t "$1" -o loop,iocharset=ascii /tmp/fat /tmp/m 2>/dev/null || mount -t "$1" -o loop /tmp/fat /tmp/m || return
	dd if=/dev/zero of=/tmp/m/file bs=64k count=8 2>/dev/null && : >/tmp/m/file && rm /tmp/m/file
	umount /tmp/m
}

# overlay OPTION: an overlay, something created in it and removed
overlay() {
	modprobe overlay && mount -t tmpfs none /tmp/m && mkdir /tmp/m/l /tmp/m/u /tmp/m/w /tmp/m/o || return
	echo lower >/tmp/m/l/file
	mount -t overlay -o "lowerdir=/tmp/m/l,upperdir=/tmp/m/u,workdir=/tmp/m/w,$1" none /tmp/m/o || return
	echo new >/tmp/m/o/new && echo more >>/tmp/m/o/file && rm /tmp/m/o/new
	umount /tmp/m/o && umount /tmp/m
}

# tap QDISC: a device with this queueing discipline
tap() {
	modprobe "sch_$1" 2>/dev/null
	echo "$1" >/proc/sys/net/core/default_qdisc || return
	modprobe tun && tunctl -t tap9 >/dev/null && ifconfig tap9 up 10.7.7.1 || return
	ping -c 1 -W 1 10.7.7.2 >/dev/null
	ifconfig tap9 down && tunctl -d tap9 >/dev/null
}

# bridge: one that sends its topology to a port
bridge() {
	modprobe bridge && modprobe dummy
	brctl addbr br9 && brctl addif br9 dummy0 || return
	echo 1 >/sys/class/net/br9/bridge/stp_state
	ifconfig dummy0 up && ifconfig br9 up && sleep 3
	ifconfig br9 down && brctl delbr br9
}
