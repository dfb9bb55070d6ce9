package lab

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// PrivateSocket is systemd's own D-Bus socket.
const PrivateSocket = "/run/systemd/private"

// HostileLog is the file to which a hostile PID 1 writes the messages that it receives,
// one a line: interface, member and arguments.
const HostileLog = "/hostile-log"

// HostileStyle is the file with the style of a hostile PID 1's answers: one of the styles
// of serveBus. It is read for each connection.
const HostileStyle = "/hostile-style"

// HostileReady appears when a hostile PID 1 is ready.
const HostileReady = "/hostile-ready"

// runHostileInit is a PID 1 with the name systemd, with direct mounts at the given paths,
// whose requests it never answers, and with systemd's private socket.
func runHostileInit(paths []string) error {
	if err := setName("systemd"); err != nil {
		return err
	}
	requests, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	for _, path := range paths {
		if err := mountAutofs(writer, path, "systemd-1"); err != nil {
			return err
		}
	}
	writer.Close()
	// No process reads the socket of a connection that a test has only opened.
	if err := os.MkdirAll("/run/systemd", 0o755); err != nil {
		return err
	}
	listener, err := net.Listen("unix", PrivateSocket)
	if err != nil {
		return err
	}
	if err := os.WriteFile(HostileReady, nil, 0o644); err != nil {
		return err
	}
	go reap()
	defer runtime.KeepAlive(requests) // always open: this process is the master
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			serveBus(conn, paths)
		}()
	}
}

// reap waits for the processes that become children of PID 1.
func reap() {
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func mountAutofs(writer *os.File, path, source string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	mount, err := autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, ProcessGroup: unix.Getpgrp(), Type: autofs.Direct, UID: -1, GID: -1, Source: source,
	})
	if err != nil {
		return err
	}
	defer mount.Close() // CRIU cannot dump a file on a mount that is in no table
	err = unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

// setName changes the name of the process in /proc/<pid>/comm.
func setName(name string) error {
	for _, file := range []string{"/proc/self/comm", "/proc/thread-self/comm"} {
		if err := os.WriteFile(file, []byte(name), 0); err != nil {
			return err
		}
	}
	return nil
}

// runHoldPipe is a master with a chosen name that never answers: the arguments are the
// name and the paths of its direct mounts.
func runHoldPipe(args []string) error {
	if err := setName(args[0]); err != nil {
		return err
	}
	requests, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	for _, path := range args[1:] {
		if err := mountAutofs(writer, path, "lab-held"); err != nil {
			return err
		}
	}
	writer.Close()
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return requests.Close()
}

// runListen replaces systemd's socket by its own. The argument is a style of serveBus, or
// "deaf" for a socket whose connections are never accepted.
func runListen(args []string) error {
	if err := os.Remove(PrivateSocket); err != nil {
		return err
	}
	listener, err := net.Listen("unix", PrivateSocket)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if args[0] == "deaf" {
		time.Sleep(time.Hour)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			answerAs(conn, args[0], nil)
		}()
	}
}
