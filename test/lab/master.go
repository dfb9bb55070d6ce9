package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// The data that the laboratory's master remembers of its mount.
const (
	HoldsRoot = "holds"  // a file open on its root, through which it answers
	CachesDev = "caches" // path and device number, as systemd does
)

// runMaster serves one direct mount: the arguments are the remembered data and the path.
// At a request it mounts a tmpfs with a marker.
func runMaster(args []string) error {
	style, path := args[0], args[1]
	requests, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	mount, err := autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, ProcessGroup: unix.Getpgrp(), Type: autofs.Direct, UID: -1, GID: -1, Source: "lab-" + style,
	})
	if err != nil {
		return err
	}
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	mount.Close() // CRIU cannot dump a file on a mount that is in no table
	writer.Close()
	var known unix.Stat_t
	if err := unix.Lstat(path, &known); err != nil {
		return err
	}
	var root *os.File
	if style == HoldsRoot {
		if root, err = openRoot(path, known.Dev); err != nil {
			return err
		}
	}
	for b := make([]byte, autofs.PacketSize); ; {
		n, err := requests.Read(b)
		if err != nil {
			return err
		}
		packet, err := autofs.ParsePacket(b[:n])
		if err != nil {
			return err
		}
		if err := answerPacket(root, path, known.Dev, packet); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// openRoot opens the autofs at a path, if it has the device number.
func openRoot(path string, device uint64) (*os.File, error) {
	control, err := autofs.OpenControl()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	return control.OpenMount(path, device)
}

func answerPacket(root *os.File, path string, device uint64, packet autofs.Packet) error {
	if root == nil {
		var err error
		if root, err = openRoot(path, device); err != nil {
			return err
		}
		defer root.Close()
	}
	if err := unix.Mount("served", path, "tmpfs", 0, "size=64k"); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := os.WriteFile(path+"/"+Marker, []byte(path+"\n"), 0o644); err != nil {
		return err
	}
	return autofs.Ready(root, packet.Token)
}
