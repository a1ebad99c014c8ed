#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Runs in the guest. Lines that start with "#demo" are what the host judges by;
# everything else is what an administrator would see.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
for word in $(cat /proc/cmdline); do
	case $word in demo_*=*) eval "${word%%=*}='${word#*=}'" ;; esac
done
say() { echo "#demo $*"; }
now() { cut -d' ' -f1 /proc/uptime; }

[ ! -b /dev/nvme1n1 ] || mount -o ro /dev/nvme1n1 /srv/repo
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
echo "1 4 1 7" > /proc/sys/kernel/printk # the console is for the demonstration; dmesg keeps everything

# An ext4 write load: allocates and frees blocks until told to stop, with a pause
# of as many seconds as $1 says.
load_start() {
	rm -f /run/load.*
	echo "$1" >/run/load.pause
	mkdir -p /var/load /run
	(
		n=0
		while [ ! -e /run/load.stop ]; do
			file=/var/load/f$((n % 16))
			dd if=/dev/zero of=$file bs=64k count=6 conv=fsync status=none 2>>/run/load.errors ||
				echo "round $n" >>/run/load.errors
			[ $((n % 3)) -ne 0 ] || rm -f $file
			n=$((n + 1))
			echo $n >/run/load.rounds
			read -r pause </run/load.pause
			sleep "$pause"
		done
		touch /run/load.done
	) &
}
load_stop() {
	touch /run/load.stop
	for _ in $(seq 100); do
		[ -e /run/load.done ] && break
		sleep 0.2
	done
	say load-rounds "$(cat /run/load.rounds)"
	say load-errors "$( [ -e /run/load.done ] && cat /run/load.errors 2>/dev/null | wc -l || echo unfinished)"
}
drop_caches() {
	for _ in $(seq "$1"); do
		echo 1 >/proc/sys/vm/drop_caches
		sleep 0.3
	done
}
# What the kernel itself says about functions redirected by a livepatch.
redirected() { grep -c klp_ftrace_handler /sys/kernel/tracing/enabled_functions; }

case $demo_phase in
control)
	# The kernel as it is, without upsplice: does the fault of this pair show?
	load_start 0.1
	sleep 2
	say control-begin
	drop_caches 40
	say control-end
	;;
main)
	say running "$(uname -r)"
	say effective-before "$(upsplice uname -r)"
	load_start 1
	say upgrade-begin "$(now)"
	. /root/sources-new
	apt-get -q update && apt-get -y upgrade --with-new-pkgs
	say apt-status $?
	say upgrade-end "$(now)"
	say installed "$(dpkg-query -W -f '${Status} ${Version}' "linux-image-$demo_to")"
	say next-boot "$(ls /boot/vmlinuz-$demo_to)"
	say running-after "$(uname -r)"
	say effective-after "$(upsplice uname -r)"
	upsplice status

	# The proof. First by the kernel's own book-keeping, then by counting calls of
	# the new functions, then by their behaviour.
	patch=$(ls /sys/kernel/livepatch | head -n 1)
	say patch "$patch"
	say redirected "$(redirected)"
	cd /sys/kernel/tracing
	for f in /sys/kernel/livepatch/"$patch"/vmlinux/*,*; do
		f=${f##*/}
		say patched "${f%,*}"
		echo "p:new/${f%,*} $patch:${f%,*}" >>kprobe_events
	done
	echo 1 >events/new/enable
	echo 0.1 >/run/load.pause
	sleep 6
	drop_caches 12
	sleep 2
	while read -r name hits _; do say hits "$name" "$hits"; done <kprobe_profile
	echo 0 >events/new/enable
	: >kprobe_events
	cd /
	load_stop
	dmesg | grep -E 'WARNING|BUG|Oops|Call Trace|protection fault|hung task' | while read -r line; do say kernel-log "$line"; done

	# From here on the old code is to be survived for as long as undo takes. What the
	# dropped caches held of the places that undo writes to is read again now.
	for f in $(find /var/lib/upsplice -type f); do
		cp -p "$f" "$f.copy" && mv "$f.copy" "$f"
	done
	sync
	say kernel-log-read "$(dmesg | wc -l) lines"

	upsplice undo
	say undo-status $?
	say undone-patches "$(ls /sys/kernel/livepatch | wc -l)"
	say undone-redirected "$(redirected)"
	say undone-modules "$(grep -c ^upsplice_ /proc/modules)"
	say undone-effective "$(upsplice uname -r)"
	# The old code again, shown as before: what survived with the splice must fail
	# again if it failed in the throwaway boot.
	if [ "$demo_control" = oops ]; then
		load_start 0.1
		sleep 1
		say undone-begin
		drop_caches 40
		say undone-end
	fi
	;;
esac
say end
sync
echo o >/proc/sysrq-trigger
sleep 60
