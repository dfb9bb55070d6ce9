//go:build linux

package autofs

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Options are the mount options of an autofs superblock in mountinfo
// (autofs_show_options(), fs/autofs/inode.c).
type Options struct {
	// FD is the number the pipe's writing end had in the process that mounted
	// it; -1 when the mount is catatonic.
	FD int
	// PipeInode identifies the pipe, as pipe:[N] in /proc/<pid>/fd; valid only
	// if HasPipe. Kernels without CONFIG_CHECKPOINT_RESTORE do not show it.
	PipeInode uint64
	HasPipe   bool
	// ProcessGroup is the master's process group in the pid namespace of the
	// process that read mountinfo; 0 if it has no number there.
	ProcessGroup int
	// Timeout is the idle time before expiry, in whole seconds; 0 is never.
	// The maximum is that of a Duration, 292 years.
	Timeout            time.Duration
	MinProto, MaxProto int
	Type               Type
	// UID and GID own the root directory; -1 when not shown, which means 0.
	// They are numbers of the initial user namespace.
	UID, GID int
	// StrictExpire: a path walk through a mount does not count as use.
	StrictExpire bool
	// Ignore asks tools that list mounts to omit this one.
	Ignore bool
}

// ErrOptions is wrapped by all errors of ParseOptions.
var ErrOptions = errors.New("invalid autofs mount options")

// maxOptions bounds the text: the kernel's is shorter than 300 bytes, and the options of a
// mount are never longer than a page.
const maxOptions = 64 << 10

// ParseOptions parses the super options of a mountinfo line of type autofs. It skips
// unknown options, for future kernels; each option that all kernels show must be present,
// once, and within its range. Errors wrap [ErrOptions] and name the option.
func ParseOptions(super string) (Options, error) {
	if len(super) > maxOptions {
		return Options{}, fmt.Errorf("%w: %d bytes, more than %d", ErrOptions, len(super), maxOptions)
	}
	p := parser{o: Options{FD: -1, UID: -1, GID: -1}, seen: make(map[string]bool)}
	for word := range strings.SplitSeq(super, ",") {
		if err := p.word(word); err != nil {
			return Options{}, fmt.Errorf("%w: %q: %w", ErrOptions, shorten(word), err)
		}
	}
	for _, name := range []string{"fd", "pgrp", "timeout", "minproto", "maxproto", "type"} {
		if !p.seen[name] {
			return Options{}, fmt.Errorf("%w: no %s", ErrOptions, name)
		}
	}
	return p.o, nil
}

// Catatonic reports whether the mount is catatonic: the kernel sends the master no
// requests, no process waits, and a missing mount is ENOENT.
func (o Options) Catatonic() bool { return o.FD < 0 }

type parser struct {
	o    Options
	seen map[string]bool
}

var errTwice = errors.New("given twice")

func (p *parser) word(word string) error {
	name, value, _ := strings.Cut(word, "=")
	kind := name
	switch name {
	case "direct", "indirect", "offset":
		kind = "type"
	case "fd", "pipe_ino", "pgrp", "timeout", "minproto", "maxproto", "uid", "gid", "strictexpire", "ignore":
	default:
		return nil
	}
	if p.seen[kind] {
		return errTwice
	}
	p.seen[kind] = true
	return p.set(name, value)
}

func (p *parser) set(name, value string) (err error) {
	o := &p.o
	switch name {
	case "direct":
		o.Type = Direct
	case "indirect":
		o.Type = Indirect
	case "offset":
		o.Type = Offset
	case "strictexpire":
		o.StrictExpire = true
	case "ignore":
		o.Ignore = true
	case "fd":
		var fd int
		fd, err = integer(value, -1, math.MaxInt32)
		if p.seen["pipe_ino"] && !o.HasPipe {
			fd = -1
		}
		o.FD = fd
	case "pipe_ino":
		if value == "-1" {
			// The kernel clears both together, but prints them without the lock.
			o.FD = -1
			return nil
		}
		o.PipeInode, err = strconv.ParseUint(value, 10, 64)
		o.HasPipe = err == nil
	case "pgrp":
		o.ProcessGroup, err = integer(value, 0, math.MaxInt32)
	case "timeout":
		o.Timeout, err = seconds(value)
	case "minproto":
		o.MinProto, err = integer(value, 0, math.MaxInt32)
	case "maxproto":
		o.MaxProto, err = integer(value, 0, math.MaxInt32)
	case "uid":
		o.UID, err = integer(value, 0, math.MaxUint32)
	case "gid":
		o.GID, err = integer(value, 0, math.MaxUint32)
	}
	return err
}

func integer(value string, low, high int64) (int, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, errors.Unwrap(err)
	}
	if n < low || n > high {
		return 0, fmt.Errorf("not within %d..%d", low, high)
	}
	return int(n), nil
}

func seconds(value string) (time.Duration, error) {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0, errors.Unwrap(err)
	}
	const most = uint64(math.MaxInt64 / time.Second)
	return time.Duration(min(n, most)) * time.Second, nil
}

// shorten keeps untrusted input in log lines short.
func shorten(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
