//go:build linux

package kernel

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// The data that a master remembers of its mount, which a restore changes.
const (
	likeSystemd   = "systemd"   // device number: automount_enter_running(), src/core/automount.c
	likeAutomount = "automount" // device and inode: handle_packet_missing_direct(), daemon/direct.c
)

// runMaster serves one direct mount: args are style and path. It prints each action in a
// line.
func runMaster(args []string) error {
	style, path := args[0], args[1]
	requests, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	mount, err := autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, ProcessGroup: unix.Getpgrp(), Type: autofs.Direct, UID: -1, GID: -1, Source: style + "-test",
	})
	if err != nil {
		return err
	}
	if err := attach(mount, path); err != nil {
		return err
	}
	mount.Close()
	if style == likeSystemd {
		writer.Close() // the kernel is the only writer, as with systemd
	}
	control, err := autofs.OpenControl()
	if err != nil {
		return err
	}
	var known unix.Stat_t
	if err := unix.Lstat(path, &known); err != nil {
		return err
	}
	fmt.Printf("serving %d\n", requests.Fd())

	for b := make([]byte, autofs.PacketSize); ; {
		n, err := requests.Read(b)
		if err != nil {
			fmt.Println("hang-up")
			return nil
		}
		p, err := autofs.ParsePacket(b[:n])
		if err != nil {
			return err
		}
		if err := answer(control, style, path, known, p); err != nil {
			fmt.Println("stale:", err)
			continue
		}
		fmt.Println("answered")
	}
}

func answer(control *autofs.Control, style, path string, known unix.Stat_t, p autofs.Packet) error {
	if style == likeAutomount && (p.Device != known.Dev || p.Inode != known.Ino) {
		return fmt.Errorf("can't find map entry for (%d,%d)", p.Device, p.Inode)
	}
	root, err := control.OpenMount(path, known.Dev)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := serveContent(root); err != nil {
		return err
	}
	return autofs.Ready(root, p.Token)
}

// master is a running master.
type master struct {
	cmd     *exec.Cmd
	path    string
	lines   chan string
	pipe    string   // its read end, in /proc
	keep    *os.File // the original mount
	device  uint64
	process int
}

func startMaster(t *testing.T, style string) *master {
	t.Helper()
	requireAutofs(t)
	m := &master{path: mountPoint(t), lines: make(chan string, 100)}
	m.cmd = child(t, "master", style, m.path)
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.process = m.cmd.Process.Pid
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			m.lines <- lines.Text()
		}
		close(m.lines)
	}()
	t.Cleanup(func() {
		killGroup(m.cmd)
		for range m.lines {
		}
		_ = m.cmd.Wait()
	})
	number := strings.TrimPrefix(m.expect(t, "serving "), "serving ")
	m.pipe = fmt.Sprintf("/proc/%d/fd/%s", m.process, number)

	if m.keep, err = os.OpenFile(m.path, unix.O_PATH, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.keep.Close() })
	if m.device, err = autofs.Device(m.keep); err != nil {
		t.Fatal(err)
	}
	return m
}

// expect waits for a line of the master.
func (m *master) expect(t *testing.T, prefix string) string {
	t.Helper()
	select {
	case line := <-m.lines:
		if !strings.HasPrefix(line, prefix) {
			t.Fatalf("the master printed %q, want %q", line, prefix)
		}
		return line
	case <-time.After(patience):
		t.Fatalf("the master does not print %q", prefix)
	}
	return ""
}

// successor creates a superblock that the same master serves, as CRIU does: with the same
// pipe and process group, but other numbers.
func (m *master) successor(t *testing.T) *os.File {
	t.Helper()
	// Not os.OpenFile: the Go runtime would poll the write end.
	fd, err := unix.Open(m.pipe, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("writing end of the master's pipe: %v", err)
	}
	writer := os.NewFile(uintptr(fd), m.pipe)
	defer writer.Close()
	mount, err := autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, ProcessGroup: m.process, Type: autofs.Direct, UID: -1, GID: -1, Source: "restored",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mount.Close() })
	return mount
}

// replace replaces the master's mount by a successor.
func (m *master) replace(t *testing.T, mount *os.File) {
	t.Helper()
	if err := unix.Unmount(m.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
	if err := attach(mount, m.path); err != nil {
		t.Fatal(err)
	}
}
