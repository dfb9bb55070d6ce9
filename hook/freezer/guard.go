package freezer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Verb is the hidden command with which the program runs as a guard.
const Verb = "thaw-groups"

// guardTime is the longest that a container stays frozen.
const guardTime = 8 * time.Second

// The guard's descriptors: the pidfd of the process it watches, then the
// control files, those of version 2 first.
const (
	watchedFile  = 3
	firstControl = 4
)

// guard is a process that thaws groups if we cannot.
type guard struct{ cmd *exec.Cmd }

func startGuard(groups []group) (*guard, error) {
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		return nil, err
	}
	defer self.Close()
	files := []*os.File{self.Pidfd()}
	args := []string{Verb}
	for _, g := range groups {
		files = append(files, g.control)
		args = append(args, g.thaw)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process that would thaw the container: %w", err)
	}
	return &guard{cmd: cmd}, nil
}

func (g *guard) stop() {
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
}

// RunGuard is what a guard does; args are the words to be written, one for each
// control file. It returns when all groups are thawed.
func RunGuard(args []string) error {
	end := time.Now().Add(guardTime)
	for {
		fds := []unix.PollFd{{Fd: watchedFile, Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(time.Until(end).Milliseconds(), 0)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n > 0 || err != nil || !time.Now().Before(end) {
			break
		}
	}
	var errs []error
	for i, word := range args {
		if _, err := unix.Write(firstControl+i, []byte(word)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("thaw group %s: %w", strconv.Itoa(i), err))
		}
	}
	return errors.Join(errs...)
}
