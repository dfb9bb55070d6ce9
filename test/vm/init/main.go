// Command init is the first program in a virtual machine of test/vm: it loads the kernel
// modules beside it, makes the root disk the root, mounts the usual file systems, and
// executes the tests.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rootDisk  = "/dev/vda"
	testsDisk = "/dev/vdb" // a tar archive, with all paths below machine/
	newRoot   = "/root"
	// A bash as process 1 reaps orphans. The tests' output has a port of its own, named
	// in the kernel's command line; /dev/console is the kernel's, too.
	start = `stty -F $TESTS_TTY raw; exec </dev/null >$TESTS_TTY 2>&1; tar -C / -xf ` + testsDisk + ` && exec /machine/test/vm/guest`
)

func main() {
	fmt.Println("machine: init:", run())
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// run returns only if something failed.
func run() error {
	modules, err := filepath.Glob("/modules/*.ko") // sorted
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := load(m); err != nil {
			fmt.Printf("machine: init: %s: %v\n", m, err)
		}
	}
	if err := mount("devtmpfs", "/dev", ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return err
	}
	for _, disk := range []string{rootDisk, testsDisk} {
		if err := appears(disk); err != nil {
			return err
		}
	}
	if err := unix.Mount(rootDisk, newRoot, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", rootDisk, err)
	}
	for _, m := range [][3]string{
		{"devtmpfs", "/dev", "mode=755"},
		{"devpts", "/dev/pts", "mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := mount(m[0], newRoot+m[1], m[2]); err != nil {
			return err
		}
	}
	// switch_root(8), without the removal of the few files here.
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root disk to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	environment := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "TESTS_TTY=" + os.Getenv("TESTS_TTY")}
	return fmt.Errorf("bash: %w", unix.Exec("/bin/bash", []string{"bash", "-c", start}, environment))
}

// load loads a module. It only prints an error: the operation that needs the module fails
// later.
func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("finit_module", unix.FinitModule(int(f.Fd()), "", 0))
}

func mount(kind, path, options string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, path, kind, 0, options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, path, err)
	}
	return nil
}

// appears waits for a disk: the kernel finds disks while this program runs.
func appears(path string) error {
	for range 1000 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("no disk %s after 10 s", path)
}
