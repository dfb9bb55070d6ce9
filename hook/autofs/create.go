//go:build linux

package autofs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// CreateOptions are the parameters of a new superblock.
type CreateOptions struct {
	// PipeWriter is the writing end of the master's pipe. The kernel takes a reference,
	// sets O_DIRECT and clears O_NONBLOCK, so it must not share its open file with other
	// descriptors. The caller closes it afterwards. Its number is in the mount options
	// (fd=): CRIU's next dump uses it only if the master has the pipe's writing end open
	// under that number (criu/autofs.c, autofs_kernel_pipe_alive).
	PipeWriter *os.File
	// ProcessGroup is the master's process group in the pid namespace of the
	// caller; 0 for the caller's own.
	ProcessGroup int
	Type         Type
	// Timeout in whole seconds; 0 is never.
	Timeout time.Duration
	// MinProto and MaxProto are both 5 if 0.
	MinProto, MaxProto int
	// UID and GID of the root directory, in the caller's user namespace; -1 for the
	// caller's.
	UID, GID int
	// Source is the mount's source in mountinfo, such as systemd-1.
	Source string
	// StrictExpire and Ignore are as in [Options]; both are older than fsopen(2).
	StrictExpire, Ignore bool
}

// Create creates an autofs superblock and returns its root as a detached mount: an O_PATH
// descriptor for move_mount(2), [Device] and [Reopen]. Closing it before it is attached
// destroys the superblock.
//
// It needs CAP_SYS_ADMIN in the initial user namespace, and fsopen(2), Linux
// 5.2. The error wraps a [*sys.MountError], or is of [SetTimeout].
func Create(o CreateOptions) (*os.File, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("create autofs: %w", err)
	}
	var root *os.File
	err := sys.OnFile(o.PipeWriter, func(fd int) error {
		fs, err := sys.OpenFSContext("autofs")
		if err != nil {
			return err
		}
		defer fs.Close()
		if err := o.configure(fs, fd); err != nil {
			return err
		}
		// Kernels before 6.7 look the descriptor up here, not before.
		root, err = fs.Mount(o.Source)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create autofs: %w", err)
	}
	if o.Timeout > 0 {
		if err := setTimeoutDetached(root, o.Timeout); err != nil {
			root.Close()
			return nil, fmt.Errorf("create autofs: %w", err)
		}
	}
	return root, nil
}

func (o *CreateOptions) check() error {
	if o.PipeWriter == nil {
		return errors.New("no pipe given")
	}
	if !o.Type.Valid() {
		return fmt.Errorf("no such %v", o.Type)
	}
	if o.ProcessGroup < 0 || o.Timeout < 0 {
		return fmt.Errorf("process group %d, timeout %v: %w", o.ProcessGroup, o.Timeout, unix.EINVAL)
	}
	if o.MinProto == 0 {
		o.MinProto = 5
	}
	if o.MaxProto == 0 {
		o.MaxProto = 5
	}
	return nil
}

// configure sets the mount options. fd is a string because autofs supports
// FSCONFIG_SET_FD only since 6.7 (e6ec453bd0f0).
func (o *CreateOptions) configure(fs *sys.FSContext, fd int) error {
	type option struct{ key, value string }
	options := []option{
		{"fd", strconv.Itoa(fd)},
		{"minproto", strconv.Itoa(o.MinProto)},
		{"maxproto", strconv.Itoa(o.MaxProto)},
	}
	if o.Source != "" {
		options = append(options, option{"source", o.Source})
	}
	if o.ProcessGroup > 0 {
		options = append(options, option{"pgrp", strconv.Itoa(o.ProcessGroup)})
	}
	if o.UID >= 0 {
		options = append(options, option{"uid", strconv.Itoa(o.UID)})
	}
	if o.GID >= 0 {
		options = append(options, option{"gid", strconv.Itoa(o.GID)})
	}
	for _, opt := range options {
		if err := fs.SetString(opt.key, opt.value); err != nil {
			return err
		}
	}
	flags := []string{o.Type.String()}
	if o.StrictExpire {
		flags = append(flags, "strictexpire")
	}
	if o.Ignore {
		flags = append(flags, "ignore")
	}
	for _, flag := range flags {
		if err := fs.SetFlag(flag); err != nil {
			return err
		}
	}
	return nil
}

func setTimeoutDetached(root *os.File, d time.Duration) error {
	real, err := Reopen(root)
	if err != nil {
		return err
	}
	defer real.Close()
	return SetTimeout(real, d)
}
