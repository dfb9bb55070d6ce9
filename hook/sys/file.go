package sys

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// OpenAt opens a path relative to dir, or an absolute one if dir is nil. O_NONBLOCK in flags
// applies to the open only and is cleared afterwards: os.NewFile adds a non-blocking file to
// the runtime's poller, which costs more than most uses of the file.
func OpenAt(dir *os.File, name string, flags int) (*os.File, error) {
	var fd int
	err := onPath("open", dir, name, func(dirfd int) (err error) {
		fd, err = unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if flags&unix.O_NONBLOCK != 0 {
		if err := unix.SetNonblock(fd, false); err != nil {
			unix.Close(fd)
			return nil, os.NewSyscallError("fcntl", err)
		}
	}
	return os.NewFile(uintptr(fd), join(dir, name)), nil
}

// maxAgain bounds the retries of openat2(2) on EAGAIN. A walk with ".." that must stay
// beneath a directory fails so if anything on the system was renamed or mounted
// meanwhile: a container that renames in a loop could keep an unbounded retry here.
const maxAgain = 128

// OpenAt2 is OpenAt with the RESOLVE_ flags of openat2(2).
func OpenAt2(dir *os.File, name string, flags int, resolve uint64) (*os.File, error) {
	var fd int
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: resolve}
	err := onPath("openat2", dir, name, func(dirfd int) (err error) {
		for range maxAgain {
			if fd, err = unix.Openat2(dirfd, name, &how); !errors.Is(err, unix.EAGAIN) {
				break
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), join(dir, name)), nil
}

// ReadlinkAt reads a link relative to dir.
func ReadlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	var n int
	err := onPath("readlink", dir, name, func(dirfd int) (err error) {
		n, err = unix.Readlinkat(dirfd, name, buf)
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// StatAt returns the attributes of a path relative to dir, or of an absolute path if
// dir is nil. flags are those of fstatat(2).
func StatAt(dir *os.File, name string, flags int) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := onPath("stat", dir, name, func(dirfd int) error { return unix.Fstatat(dirfd, name, &st, flags) })
	return st, err
}

// Stat returns the attributes of an open file, which may be one of O_PATH. Unlike the
// Stat method of f it needs no conversion to reach the device number and owner.
func Stat(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := OnFile(f, func(fd int) error { return unix.Fstat(fd, &st) })
	return st, os.NewSyscallError("fstat", err)
}

// StatFS returns the attributes of the file system that an open file is on.
func StatFS(f *os.File) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	err := OnFile(f, func(fd int) error { return unix.Fstatfs(fd, &st) })
	return st, os.NewSyscallError("fstatfs", err)
}

// StatFSPath returns the attributes of the file system at a path.
func StatFSPath(path string) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	err := onPath("statfs", nil, path, func(int) error { return unix.Statfs(path, &st) })
	return st, err
}

// Statx returns the attributes that mask names of an open file. It triggers no automount.
func Statx(f *os.File, mask int) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := OnFile(f, func(fd int) error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, mask, &st) })
	return st, os.NewSyscallError("statx", err)
}

// OpenHandle opens a file by its handle, to look at it (O_PATH); mount is any file on
// its file system.
func OpenHandle(mount *os.File, handle unix.FileHandle) (*os.File, error) {
	fd, err := fromFile(mount, func(mountfd int) (int, error) {
		return unix.OpenByHandleAt(mountfd, handle, unix.O_PATH|unix.O_CLOEXEC)
	})
	if err != nil {
		return nil, os.NewSyscallError("open_by_handle_at", err)
	}
	return os.NewFile(uintptr(fd), mount.Name()), nil
}

// MkdirAt creates a directory in dir.
func MkdirAt(dir *os.File, name string, mode uint32) error {
	return onPath("mkdir", dir, name, func(dirfd int) error { return unix.Mkdirat(dirfd, name, mode) })
}

// MkdirAtAs is MkdirAt with the file system user and group ids of another user.
func MkdirAtAs(dir *os.File, name string, mode uint32, uid, gid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	oldGID, err := unix.SetfsgidRetGid(gid)
	if err != nil {
		return os.NewSyscallError("setfsgid", err)
	}
	oldUID, err := unix.SetfsuidRetUid(uid)
	if err != nil {
		return os.NewSyscallError("setfsuid", err)
	}
	defer func() {
		_ = unix.Setfsuid(oldUID)
		_ = unix.Setfsgid(oldGID)
	}()
	return MkdirAt(dir, name, mode)
}

// RmdirAt removes an empty directory in dir.
func RmdirAt(dir *os.File, name string) error {
	return onPath("rmdir", dir, name, func(dirfd int) error { return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR) })
}

// Memfd creates a file in memory. flags are those of memfd_create(2).
func Memfd(name string, flags int) (*os.File, error) {
	fd, err := Retry(func() (int, error) { return unix.MemfdCreate(name, flags|unix.MFD_CLOEXEC) })
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Pipe creates a pipe whose ends block, unlike those of os.Pipe: the kernel reads the
// mode of an autofs pipe, and other processes share its open files.
func Pipe() (reader, writer *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// Read is one read(2), which blocks: for a pipe in packet mode, and for files that the
// runtime's poller must not see.
func Read(f *os.File, b []byte) (int, error) {
	n, err := fromFile(f, func(fd int) (int, error) { return unix.Read(fd, b) })
	return max(n, 0), os.NewSyscallError("read", err)
}

// usualFiles is the least size of a table of open files that is not expanded.
const usualFiles = 256

// ExpandFiles makes room for n open files, without waiting for it. When the table of a
// process with threads grows, the kernel waits for all processors (synchronize_rcu in
// expand_fdtable, fs/file.c): 6 to 14 ms with Linux 6.18, during which files below its old
// size can be opened.
func ExpandFiles(n int) {
	if n <= usualFiles {
		return
	}
	go func() {
		if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, n-1); err == nil { // else the limit of open files is lower
			unix.Close(fd)
		}
	}()
}
