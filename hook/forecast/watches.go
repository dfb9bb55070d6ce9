package forecast

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// watch is an inotify watch of a running process, as /proc/PID/fdinfo describes it.
type watch struct {
	PID    int // of the process, here
	Device uint64
	Inode  uint64
	// Handle is the file handle of the watched file; empty if the filesystem has none.
	Handle     []byte
	HandleType int32
}

// Bounds of the search in one container.
const (
	maxFiles   = 1 << 16 // open files of all processes
	maxWatches = 1 << 14
	maxInfo    = 4 << 20 // bytes of one fdinfo
	maxTries   = 16      // mounts of a filesystem that are tried for one handle
)

// watchesOf lists the inotify watches of processes.
func watchesOf(pids []int) ([]watch, error) {
	var found []watch
	files := 0
	for _, pid := range pids {
		p, err := nsenter.Open(pid)
		if err != nil {
			continue // it has ended
		}
		names, _ := p.ReadDirNames("fd") // none if it has ended meanwhile
		for _, name := range names {
			if link, err := p.Readlink("fd/" + name); err != nil || link != "anon_inode:inotify" {
				continue
			}
			if info, err := p.ReadFile("fdinfo/"+name, maxInfo); err == nil {
				found = append(found, parseInfo(pid, string(info))...)
			}
		}
		p.Close()
		if files += len(names); files > maxFiles || len(found) > maxWatches {
			return found[:min(len(found), maxWatches)], fmt.Errorf("more than %d open files or %d inotify watches: the others were not examined", maxFiles, maxWatches)
		}
	}
	return found, nil
}

// parseInfo reads lines such as
//
//	inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d
//
// (proc_pid_fdinfo(5)).
func parseInfo(pid int, text string) []watch {
	var list []watch
	for line := range strings.Lines(text) {
		fields, ok := strings.CutPrefix(line, "inotify ")
		if !ok {
			continue
		}
		w := watch{PID: pid}
		for field := range strings.FieldsSeq(fields) {
			name, value, _ := strings.Cut(field, ":")
			switch name {
			case "ino":
				w.Inode, _ = strconv.ParseUint(value, 16, 64)
			case "sdev": // the kernel's own form, with 20 bits for the minor number
				n, _ := strconv.ParseUint(value, 16, 32)
				w.Device = unix.Mkdev(uint32(n>>20), uint32(n&0xfffff))
			case "fhandle-type":
				n, _ := strconv.ParseInt(value, 16, 32)
				w.HandleType = int32(n)
			case "f_handle":
				w.Handle, _ = hex.DecodeString(value)
			}
		}
		list = append(list, w)
	}
	return list
}

// place is where CRIU would find a watched file.
type place struct {
	watch watch
	kind  string // of the filesystem, "" if no mount shows it
	path  string // that leads to it; "" if none does
	shown string // a path for messages, even if CRIU cannot use it
	gone  bool   // the handle is stale
}

// locate looks for watched files in the mount namespace of a container, as CRIU does at a
// checkpoint (check_open_handle, criu/fsnotify.c).
func locate(ctx context.Context, init *nsenter.Process, watches []watch) ([]place, error) {
	found := make(chan []place, 1)
	err := init.InMountNamespace(ctx, func(t *nsenter.Thread) error {
		f, err := t.OpenProc("mountinfo")
		if err != nil {
			return err
		}
		defer f.Close()
		table, err := mounts.Read(f)
		if err != nil {
			return err
		}
		byDevice := map[uint64][]*mounts.Mount{}
		for _, m := range table.Mounts {
			if m.FSType != "autofs" { // a walk onto one may wait for its master
				byDevice[mounts.DeviceOf(m)] = append(byDevice[mounts.DeviceOf(m)], m)
			}
		}
		var places []place
		for _, w := range watches {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			places = append(places, locateOne(t, w, byDevice[w.Device]))
		}
		found <- places
		return nil
	})
	if err != nil {
		return nil, err
	}
	return <-found, nil
}

func locateOne(t *nsenter.Thread, w watch, list []*mounts.Mount) place {
	p := place{watch: w}
	handle := unix.NewFileHandle(w.HandleType, w.Handle)
	for _, m := range list[:min(len(list), maxTries)] {
		p.kind = m.FSType
		dir, err := sys.OpenAt(nil, m.Mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
		if err != nil {
			continue // a file, or hidden
		}
		f, err := sys.OpenHandle(dir, handle)
		dir.Close()
		if err != nil {
			p.gone = p.gone || errors.Is(err, unix.ESTALE)
			continue
		}
		name, err := t.Readlink("fd/" + strconv.Itoa(int(f.Fd())))
		f.Close()
		if err != nil || !path.IsAbs(name) {
			continue
		}
		p.gone = false
		if st, err := sys.StatAt(nil, name, 0); err == nil && st.Ino == w.Inode {
			p.path = name
			return p
		}
		// The link is relative to the mount: on a bind mount of a directory the path may
		// lead to another file.
		if st, err := sys.StatAt(nil, name, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Ino == w.Inode {
			p.shown = name
		}
	}
	return p
}

// Watches returns the watches that CRIU will not dump, or not restore elsewhere. init is
// the container's first process, and own its control group if it has no cgroup
// namespace.
func Watches(ctx context.Context, init *nsenter.Process, pids []int, own string, m Machine) ([]Problem, error) {
	for end := time.Now().Add(settleTime); ; time.Sleep(settleInterval) {
		list, err := watchesOf(pids)
		places, locateErr := locate(ctx, init, list)
		gone := slices.ContainsFunc(places, func(p place) bool { return p.gone && p.kind == "cgroup2" })
		if err = errors.Join(err, locateErr); err != nil || !gone || ctx.Err() != nil || time.Now().After(end) {
			return judge(places, own, m), err
		}
	}
}

// A systemd that has removed a control group closes its watch on it some milliseconds
// later: only a watch that stays is a problem.
const (
	settleTime     = 500 * time.Millisecond
	settleInterval = 20 * time.Millisecond
)

// judge returns the problems of watches.
func judge(places []place, own string, m Machine) []Problem {
	var gone, lost, pinned, host []string
	for _, p := range places {
		of := fmt.Sprintf("process %d", p.watch.PID)
		switch {
		case p.path != "" && p.kind == "cgroup2":
			if own != "" && strings.Contains(p.path+"/", own+"/") {
				host = append(host, own)
			}
		case p.path != "" || p.kind == "": // found, or in another mount namespace
		case p.kind == "cgroup2":
			if p.gone {
				gone = append(gone, of)
			}
		case p.kind == "tmpfs" || p.kind == "devtmpfs" || p.shown == "":
			lost = append(lost, fmt.Sprintf("%s: inode %d on %s", of, p.watch.Inode, p.kind))
		case !m.ForceIrmap:
			pinned = append(pinned, p.shown)
		}
	}
	return slices.Concat(
		problem(gone, atCheckpoint, "a control group is watched that does not exist any more (%s): CRIU says \"Can't dump that handle\"",
			"make its systemd open its watches again: systemctl daemon-reexec in the container"),
		problem(lost, atCheckpoint, "a file is watched that no path leads to (%s): CRIU finds it by its inode number in /etc, /var/log and few other folders, or says \"Can't dump that handle\"",
			"restart the process that watches it, or mount the root filesystem from a folder instead of overlayfs"),
		problem(pinned, atRestore, "%s is watched, and CRIU remembers a file handle instead of a path: restored on another root filesystem it fails with \"Stale file handle\"",
			"autofs-restore-hook install --force-irmap before the checkpoint"),
		problem(host, atRestore, "the container has no cgroup namespace, and watches %s by that path: it cannot be restored where its control group has another one",
			"restore it under the same name, or create it with a cgroup namespace (podman run --cgroupns=private)"),
	)
}
