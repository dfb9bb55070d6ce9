package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stopFile ends the loops of hostile processes of a container.
const stopFile = "/hostile-stop"

func stopped() bool {
	_, err := os.Stat(stopFile)
	return err == nil
}

// runSwap exchanges a path with a link to the given target, as fast as it can, until
// [stopFile] appears. At the end the path is the original one.
func runSwap(args []string) error {
	path, target := args[0], args[1]
	link := path + ".link"
	if err := os.Symlink(target, link); err != nil {
		return err
	}
	fmt.Println("ready")
	exchange := func() error {
		return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
	}
	count := 0
	for ; !stopped(); count++ {
		if err := exchange(); err != nil {
			return err
		}
		time.Sleep(time.Duration(count%7) * 20 * time.Microsecond)
	}
	if count%2 == 1 {
		if err := exchange(); err != nil {
			return err
		}
	}
	fmt.Println("swapped", count)
	return os.Remove(link)
}

// runSnoop tries to open the program file and the memory of every process from outside
// the container, until [stopFile] appears. It writes a line for each process and each
// successful way to open it, and at the end all processes from outside.
func runSnoop([]string) error {
	known := map[string]bool{}
	seen := map[string]int{}
	for _, pid := range numbers() {
		known[pid] = true
	}
	fmt.Println("ready")
	for !stopped() {
		for _, pid := range numbers() {
			if known[pid] {
				continue
			}
			if snoop(pid, seen) {
				known[pid] = true
			}
		}
	}
	for _, fd := range kept {
		// The process that ran the program has ended by now, so the file is not busy.
		link, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			if _, err := unix.Pwrite(w, nil, 0); err == nil && !sealed(w) {
				seen["WRITE exe "+link]++
			}
		}
	}
	for what, count := range seen {
		fmt.Printf("%s: %d\n", what, count)
	}
	return nil
}

// sealed reports whether a memfd is sealed against writing.
func sealed(fd int) bool {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && seals&unix.F_SEAL_WRITE != 0
}

// kept are the opened program files of processes from outside.
var kept []int

// maxKept is the limit of kept.
const maxKept = 64

// snoop tries one process. It returns true for a process of the container itself.
func snoop(pid string, seen map[string]int) bool {
	dir := filepath.Join("/proc", pid)
	command, err := os.ReadFile(dir + "/comm")
	if err != nil {
		return true // it has ended
	}
	name := strings.TrimSpace(string(command))
	if !strings.HasPrefix(name, "autofs-restore") && !numeric(name) {
		return true // one of the container's own
	}
	foreign := func(link string) bool { return strings.Contains(link, "autofs-restore-hook") }
	link, err := os.Readlink(dir + "/exe")
	switch {
	case err == nil && !foreign(link):
		return true
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		seen["closed "+name]++
	case err != nil:
		return true
	}
	for _, try := range []struct {
		file  string
		flags int
	}{
		{"exe", unix.O_RDONLY},
		{"exe", unix.O_WRONLY},
		{"mem", unix.O_RDONLY},
		{"mem", unix.O_RDWR},
		{"environ", unix.O_RDONLY},
		{"fd/3", unix.O_RDONLY},
		{"root", unix.O_PATH},
		{"cwd", unix.O_PATH},
	} {
		fd, err := unix.Open(dir+"/"+try.file, try.flags|unix.O_CLOEXEC, 0)
		if err == nil {
			now, _ := os.Readlink(dir + "/exe")
			b := make([]byte, 1)
			if _, err := unix.Read(fd, b); try.file == "environ" && (err != nil || b[0] == 0) {
				unix.Close(fd) // it may be openable but have no content
				continue
			}
			if foreign(now) || now == "" {
				seen[fmt.Sprintf("OPEN %s %s %#x", name, try.file, try.flags)]++
			}
			var st unix.Stat_t
			if try.file == "exe" && foreign(now) && len(kept) < maxKept && unix.Fstat(fd, &st) == nil {
				seen[fmt.Sprintf("EXE %d:%d", st.Dev, st.Ino)]++
				kept = append(kept, fd)
			} else {
				unix.Close(fd)
			}
		} else if errors.Is(err, unix.ETXTBSY) {
			seen[fmt.Sprintf("BUSY %s %s", name, try.file)]++
		}
	}
	return false
}

// numeric reports whether a command name is that of a program executed by its descriptor.
func numeric(name string) bool {
	_, err := strconv.Atoi(name)
	return err == nil
}

func numbers() []string {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var list []string
	for _, name := range names {
		if _, err := strconv.Atoi(name); err == nil {
			list = append(list, name)
		}
	}
	return list
}

// runMountMany mounts a file system on many folders, and binds the whole tree repeatedly,
// until the limit of the namespace or the given number is reached. The arguments are a
// folder, the number, and how long to stay.
func runMountMany(args []string) error {
	root := args[0]
	wanted, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("many", root, "tmpfs", 0, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Mount("", root, "", unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	first := root + "/0"
	if err := os.Mkdir(first, 0o755); err != nil {
		return err
	}
	source := first
	if len(args) > 2 {
		source = args[2] // a mount to be copied
	}
	const seed = 256
	count := 0
	for ; count < min(seed, wanted); count++ {
		dir := fmt.Sprintf("%s/0/%d", root, count)
		if count == 0 {
			if err := unix.Mount("seed", first, "tmpfs", 0, ""); err != nil {
				return os.NewSyscallError("mount", err)
			}
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := bind(source, dir); err != nil {
			return err
		}
	}
	begin := time.Now()
	for i := 1; count < wanted && time.Since(begin) < 20*time.Second; i++ {
		dir := fmt.Sprintf("%s/%d", root, i)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		err := unix.Mount(first, dir, "", unix.MS_BIND|unix.MS_REC, "")
		if errors.Is(err, unix.ENOSPC) {
			break // fs.mount-max
		}
		if err != nil {
			return os.NewSyscallError("mount", err)
		}
		count += seed + 1
	}
	fmt.Println("ready", count)
	time.Sleep(time.Hour)
	return nil
}

// bind mounts a copy of a mount elsewhere, without triggering an automount.
func bind(source, target string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_NO_AUTOMOUNT)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	err = unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}
