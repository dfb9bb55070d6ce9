package lab

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runWatchGone watches a control group and then removes it: the watch stays.
func runWatchGone([]string) error {
	const group = "/sys/fs/cgroup/lab-gone"
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, group+"/cgroup.events", unix.IN_MODIFY); err != nil {
		return err
	}
	if err := syscall.Rmdir(group); err != nil {
		return err
	}
	if err := os.WriteFile("/run/watch-gone", nil, 0o600); err != nil {
		return err
	}
	time.Sleep(time.Hour)
	return fmt.Errorf("an hour is over")
}
