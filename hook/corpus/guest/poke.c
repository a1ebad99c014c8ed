// SPDX-License-Identifier: GPL-2.0-only
/* Calls the kernel in ways that no tool of a small guest does: poke WHAT [PATH]. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/ethtool.h>
#include <linux/if.h>
#include <linux/if_alg.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/loop.h>
#include <linux/sockios.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

/* must: what is tried does not fail on a kernel that works. */
static long must(long r, const char *what)
{
	if (r < 0) {
		perror(what);
		exit(1);
	}
	return r;
}

static int scratch(const char *dir, const char *name)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = must(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600), path);
	unlink(path);
	return fd;
}

static void aio_fasync(void)
{
	int p[2];

	must(pipe(p), "pipe");
	must(fcntl(p[0], F_SETFL, O_ASYNC | O_NONBLOCK), "F_SETFL");
	must(fcntl(p[0], F_SETFL, 0), "F_SETFL");
}

static void rwhint(const char *path)
{
	int fd = must(open(path, O_RDWR | O_CREAT, 0600), path);
	unsigned long long hint = RWH_WRITE_LIFE_SHORT;

	must(fcntl(fd, F_SET_RW_HINT, &hint), "F_SET_RW_HINT");
	unlink(path);
}

static void timens(void)
{
	struct timespec t = { 0, 1000000 };
	int fd;

	must(unshare(CLONE_NEWTIME), "unshare");
	fd = must(open("/proc/self/timens_offsets", O_WRONLY), "timens_offsets");
	must(write(fd, "monotonic 100 5\n", 16), "timens_offsets");
	if (!must(fork(), "fork")) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		t.tv_nsec = 0;
		_exit(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
	}
	wait(NULL);
}

static int loopback(int type)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(7777), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = must(socket(AF_INET, type, 0), "socket");

	must(connect(fd, (struct sockaddr *)&a, sizeof(a)), "connect");
	return fd;
}

static void tcp(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(7777), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = must(socket(AF_INET, SOCK_STREAM, 0), "socket"), c, s, i, one = 1;
	char ca[16], buf[4096] = "x";
	socklen_t len = sizeof(ca);

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	must(bind(l, (struct sockaddr *)&a, sizeof(a)), "bind");
	must(listen(l, 5), "listen");
	c = loopback(SOCK_STREAM);
	s = must(accept(l, NULL, NULL), "accept");
	must(getsockopt(c, IPPROTO_TCP, TCP_CONGESTION, ca, &len), "TCP_CONGESTION");
	for (i = 0; i < 20; i++) {
		must(write(c, buf, sizeof(buf)), "write");
		must(read(s, buf, sizeof(buf)), "read");
		must(write(s, buf, 1), "write");
		must(read(c, buf, 1), "read");
	}
	close(c);
	close(s);
	close(l);
}

static void keys(void)
{
	long key = must(syscall(SYS_add_key, "user", "poke", "abc", 3, KEY_SPEC_SESSION_KEYRING), "add_key");
	char buf[16];

	must(syscall(SYS_keyctl, KEYCTL_READ, key, buf, sizeof(buf)), "KEYCTL_READ");
	must(syscall(SYS_request_key, "user", "poke", NULL, KEY_SPEC_SESSION_KEYRING), "request_key");
	must(syscall(SYS_keyctl, KEYCTL_UNLINK, key, KEY_SPEC_SESSION_KEYRING), "KEYCTL_UNLINK");
}

static void landlock(const char *dir)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_FIFO | 1ULL << 13 /* refer */ };
	char from[256], to[256];
	int fd = must(syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0), "landlock_create_ruleset");

	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	must(syscall(SYS_landlock_restrict_self, fd, 0), "landlock_restrict_self");
	snprintf(from, sizeof(from), "%s/poke1", dir);
	snprintf(to, sizeof(to), "%s/poke2", dir);
	close(must(open(from, O_RDWR | O_CREAT, 0600), from));
	must(rename(from, to), "rename");
	unlink(to);
}

static void uring(const char *what)
{
	struct io_uring_params p = { 0 };
	static char buf[8192] __attribute__((aligned(4096)));
	struct iovec v = { buf, sizeof(buf) };
	int fd;

	if (!strcmp(what, "sqpoll"))
		p.flags = IORING_SETUP_SQPOLL;
	fd = must(syscall(SYS_io_uring_setup, 8, &p), "io_uring_setup");
	if (!strcmp(what, "buffers"))
		must(syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &v, 1), "IORING_REGISTER_BUFFERS");
	close(fd);
}

static void alg(void)
{
	struct sockaddr_alg a = { .salg_family = AF_ALG, .salg_type = "skcipher", .salg_name = "cbc(aes)" };
	char control[CMSG_SPACE(4) + CMSG_SPACE(20)] = { 0 }, buf[16] = { 0 };
	struct iovec v = { buf, sizeof(buf) };
	struct msghdr m = { .msg_control = control, .msg_controllen = sizeof(control), .msg_iov = &v, .msg_iovlen = 1 };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int t = must(socket(AF_ALG, SOCK_SEQPACKET, 0), "AF_ALG"), fd;

	must(bind(t, (struct sockaddr *)&a, sizeof(a)), "cbc(aes)");
	must(setsockopt(t, SOL_ALG, ALG_SET_KEY, "0123456789abcdef", 16), "ALG_SET_KEY");
	fd = must(accept(t, NULL, NULL), "accept");
	*c = (struct cmsghdr){ .cmsg_level = SOL_ALG, .cmsg_type = ALG_SET_OP, .cmsg_len = CMSG_LEN(4) };
	*(int *)CMSG_DATA(c) = ALG_OP_ENCRYPT;
	c = CMSG_NXTHDR(&m, c);
	*c = (struct cmsghdr){ .cmsg_level = SOL_ALG, .cmsg_type = ALG_SET_IV, .cmsg_len = CMSG_LEN(20) };
	*(int *)CMSG_DATA(c) = 16;
	must(sendmsg(fd, &m, 0), "sendmsg");
	must(read(fd, buf, sizeof(buf)), "read");
}

static void auxv(void)
{
	char buf[1024];
	int fd = must(open("/proc/self/auxv", O_RDONLY), "auxv");
	long n = must(read(fd, buf, sizeof(buf)), "auxv");

	must(prctl(PR_SET_MM, 12 /* PR_SET_MM_AUXV */, buf, n, 0), "PR_SET_MM_AUXV");
}

static void itimer(void)
{
	struct itimerval v = { { 0, 0 }, { 100, 0 } };

	must(setitimer(ITIMER_VIRTUAL, &v, NULL), "setitimer");
	must(getitimer(ITIMER_VIRTUAL, &v), "getitimer");
}

static void cpusleep(void)
{
	struct timespec t = { 0, 20000000 };
	pid_t spin = must(fork(), "fork");

	if (!spin)
		for (;;)
			;
	/* the process itself gets no time while it sleeps */
	clockid_t clock = (~(clockid_t)spin << 3) | 2;
	must(-clock_nanosleep(clock, 0, &t, NULL), "clock_nanosleep");
	kill(spin, SIGKILL);
	wait(NULL);
}

static void gettstamp(void)
{
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	struct timeval tv;

	ioctl(fd, SIOCGSTAMP_OLD, &tv); /* nothing has come yet */
}

static void tun(void)
{
	struct ifreq r = { .ifr_name = "poke0", .ifr_flags = IFF_TUN | IFF_NO_PI };
	char packet[20] = { 0x45 };
	int fd = must(open("/dev/net/tun", O_RDWR), "/dev/net/tun"), s = socket(AF_INET, SOCK_DGRAM, 0);

	must(ioctl(fd, TUNSETIFF, &r), "TUNSETIFF");
	r.ifr_flags = IFF_UP;
	must(ioctl(s, SIOCSIFFLAGS, &r), "SIOCSIFFLAGS");
	must(write(fd, packet, sizeof(packet)), "write");
	sleep(2); /* the device announces itself: packets in the other direction */
}

static void scm(void)
{
	int a[2], b[2], i;

	for (i = 0; i < 2; i++) {
		char control[CMSG_SPACE(sizeof(int))] = { 0 }, x = 'x';
		struct iovec v = { &x, 1 };
		struct msghdr m = { .msg_control = control, .msg_controllen = sizeof(control), .msg_iov = &v, .msg_iovlen = 1 };
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);

		must(socketpair(AF_UNIX, SOCK_STREAM, 0, a), "socketpair");
		must(socketpair(AF_UNIX, SOCK_STREAM, 0, b), "socketpair");
		*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(c), &b[0], sizeof(int));
		must(sendmsg(a[0], &m, 0), "sendmsg");
		must(recvmsg(a[1], &m, 0), "recvmsg");
		close(a[0]), close(a[1]), close(b[0]), close(b[1]);
	}
}

static void signals(void)
{
	struct signalfd_siginfo info;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	must(sigprocmask(SIG_BLOCK, &set, NULL), "sigprocmask");
	fd = must(signalfd(-1, &set, 0), "signalfd");
	must(raise(SIGUSR1), "raise");
	must(read(fd, &info, sizeof(info)), "signalfd");
}

static void splices(const char *dir)
{
	int p[2], fd = scratch(dir, "poke-splice");

	must(pipe(p), "pipe");
	must(write(p[1], "abc", 3), "write");
	must(splice(p[0], NULL, fd, NULL, 3, 0), "splice");
}

static void copyrange(const char *dir)
{
	int a = scratch(dir, "poke-from"), b = scratch(dir, "poke-to");
	loff_t at = 0;

	must(write(a, "abc", 3), "write");
	must(copy_file_range(a, &at, b, NULL, 3, 0), "copy_file_range");
}

static void queue(void)
{
	mqd_t q = mq_open("/poke", O_RDWR | O_CREAT, 0600, NULL);

	must(q, "mq_open");
	mq_close(q);
	must(mq_unlink("/poke"), "mq_unlink");
}

static void message(void)
{
	struct { long type; char text[8]; } m = { 1, "abc" };
	int q = must(msgget(IPC_PRIVATE, 0600), "msgget");

	must(msgsnd(q, &m, sizeof(m.text), 0), "msgsnd");
	must(msgrcv(q, &m, sizeof(m.text), 0, 0), "msgrcv");
	msgctl(q, IPC_RMID, NULL);
}

static void shm(void)
{
	struct shm_info info;
	int id = must(shmget(IPC_PRIVATE, 8192, 0600), "shmget");

	must(shmctl(0, SHM_INFO, (struct shmid_ds *)&info), "SHM_INFO");
	shmctl(id, IPC_RMID, NULL);
}

static void locked(void)
{
	char *p = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(mlock(p, 8192), "mlock");
	must(munlock(p, 8192), "munlock");
}

static void loopadd(void)
{
	int fd = must(open("/dev/loop-control", O_RDWR), "/dev/loop-control");

	must(ioctl(fd, LOOP_CTL_ADD, 77), "LOOP_CTL_ADD");
	must(ioctl(fd, LOOP_CTL_REMOVE, 77), "LOOP_CTL_REMOVE");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : "/tmp";
	int flags = 0;

#define IS(name) (!strcmp(what, name))
	if (IS("fasync"))
		aio_fasync();
	else if (IS("rwhint"))
		rwhint(arg);
	else if (IS("fspick"))
		must(syscall(433, AT_FDCWD, "/", 0), "fspick");
	else if (IS("tmpfile"))
		must(open(arg, O_TMPFILE | O_RDWR, 0600), arg);
	else if (IS("ext4ioctl"))
		must(ioctl(must(open(arg, O_RDONLY), arg), _IOR('v', 1, long), &flags), "FS_IOC_GETVERSION");
	else if (IS("timens"))
		timens();
	else if (IS("tcp"))
		tcp();
	else if (IS("keyctl"))
		keys();
	else if (IS("landlock"))
		landlock(arg);
	else if (IS("uring"))
		uring(arg);
	else if (IS("alg"))
		alg();
	else if (IS("newnet"))
		must(unshare(CLONE_NEWNET), "unshare");
	else if (IS("newipc"))
		must(unshare(CLONE_NEWIPC), "unshare");
	else if (IS("auxv"))
		auxv();
	else if (IS("itimer"))
		itimer();
	else if (IS("cpusleep"))
		cpusleep();
	else if (IS("gettstamp"))
		gettstamp();
	else if (IS("tun"))
		tun();
	else if (IS("scm"))
		scm();
	else if (IS("signalfd"))
		signals();
	else if (IS("splice"))
		splices(arg);
	else if (IS("copyrange"))
		copyrange(arg);
	else if (IS("mq"))
		queue();
	else if (IS("msg"))
		message();
	else if (IS("shm"))
		shm();
	else if (IS("mlock"))
		locked();
	else if (IS("loopadd"))
		loopadd();
	else if (IS("ioctl"))
		ioctl(must(open(arg, O_RDWR), arg), _IO('p', 99), 0); /* one that nobody has */
	else {
		fprintf(stderr, "usage: poke WHAT [PATH]\n");
		return 2;
	}
	return 0;
}
