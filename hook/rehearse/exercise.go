// SPDX-License-Identifier: Apache-2.0

package rehearse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// exercise uses the common parts of the kernel for a moment: files in dir, the
// network's loopback, processes.
func exercise(ctx context.Context, dir string) (string, error) {
	if err := useFiles(filepath.Join(dir, "exercise"), 24); err != nil {
		return "", fmt.Errorf("using files: %w", err)
	}
	if err := useNetwork(ctx, 20); err != nil {
		return "", fmt.Errorf("using the network: %w", err)
	}
	if err := useProcesses(ctx); err != nil {
		return "", fmt.Errorf("using processes: %w", err)
	}
	return "files, network, processes", nil
}

// useFiles writes, syncs, renames, reads, cuts and deletes files of all sizes.
func useFiles(dir string, count int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range count {
		data := bytes.Repeat([]byte{byte(i), 'x'}, 512<<(i%10))
		path := filepath.Join(dir, fmt.Sprint("f", i))
		f, err := os.Create(path + "~")
		if err != nil {
			return err
		}
		_, err = f.Write(data)
		if err == nil {
			err = f.Sync()
		}
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return err
		}
		if err := os.Rename(path+"~", path); err != nil {
			return err
		}
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return fmt.Errorf("%s does not hold what was written", path)
		}
		if err := os.Truncate(path, int64(len(data)/3)); err != nil {
			return err
		}
		if i%2 == 0 {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(dir)
}

// useNetwork sends count messages there and back over TCP, UDP and a Unix socket.
func useNetwork(ctx context.Context, count int) error {
	for _, network := range []string{"tcp", "unix"} {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = fmt.Sprintf("@upsplice-%d", time.Now().UnixNano())
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if c, err := l.Accept(); err == nil {
				_, _ = io.Copy(c, c)
				c.Close()
			}
		})
		err = echo(ctx, network, l.Addr().String(), count)
		l.Close()
		wg.Wait()
		if err != nil {
			return err
		}
	}
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from)
		}
	})
	err = echo(ctx, "udp", server.LocalAddr().String(), count)
	server.Close()
	wg.Wait()
	return err
}

func echo(ctx context.Context, network, addr string, count int) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	got := make([]byte, 1400)
	for i := range count {
		sent := bytes.Repeat([]byte{byte(i)}, 1+i*61%1400)
		if _, err := c.Write(sent); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, got[:len(sent)]); err != nil {
			return err
		}
		if !bytes.Equal(sent, got[:len(sent)]) {
			return fmt.Errorf("what came back over %s is not what was sent", network)
		}
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		// Else each connection stays in the kernel for a minute, and slab counts with it.
		return tcp.SetLinger(0)
	}
	return nil
}

// useProcesses starts a program, and has threads of different priorities hand a
// token round.
func useProcesses(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "/init", "--version").CombinedOutput(); err != nil {
		return fmt.Errorf("starting a program: %w: %s", err, out)
	}
	const threads, turns = 4, 25
	ring := make([]chan int, threads)
	for i := range ring {
		ring[i] = make(chan int, 1)
	}
	var wg sync.WaitGroup
	for i := range threads {
		wg.Go(func() {
			// Not unlocked: the thread has another priority and ends with its goroutine.
			runtime.LockOSThread()
			_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), i)
			for range turns {
				n := <-ring[i]
				_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
				ring[(i+1)%threads] <- n + 1
			}
		})
	}
	ring[0] <- 0
	wg.Wait()
	if n := <-ring[0]; n != threads*turns {
		return fmt.Errorf("the token went round %d times", n)
	}
	return nil
}

// upLoopback switches the interface lo on (netdevice(7)).
func upLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return fmt.Errorf("switching the loopback interface on: %w", err)
	}
	defer unix.Close(fd)
	var req struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], "lo")
	req.flags = unix.IFF_UP
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return fmt.Errorf("switching the loopback interface on: %w", errno)
	}
	return nil
}

// load keeps the file system, the network and the scheduler busy.
type load struct {
	wg  sync.WaitGroup
	mu  sync.Mutex
	err error
}

// startLoad runs until ctx ends. The pauses leave the processors to others now and
// then: a machine that does nothing else takes minutes for a transition when it is
// emulated.
func startLoad(ctx context.Context, dir string) *load {
	l := &load{}
	run := func(pause time.Duration, do func() error) {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil && ctx.Err() == nil {
					l.mu.Lock()
					l.err = err
					l.mu.Unlock()
					return
				}
				time.Sleep(pause)
			}
		})
	}
	run(5*time.Millisecond, func() error { return useFiles(dir, 6) })
	run(5*time.Millisecond, func() error { return useNetwork(ctx, 8) })
	run(20*time.Millisecond, func() error { return useProcesses(ctx) })
	return l
}

// wait returns the first error of the load after its end.
func (l *load) wait() error {
	l.wg.Wait()
	return l.err
}
