package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// checkCalled runs what CRIU will call as CRIU does, at a stage where there is no
// work: CRIU aborts the checkpoints and restores of every engine when it cannot.
// The right to be executed says little: the file system may be mounted with noexec,
// or a security module may refuse.
func (p *plan) checkCalled(ctx context.Context) error {
	for _, name := range []string{p.program, p.called} {
		_, err := p.tree.runWith(ctx, []string{"CRTOOLS_SCRIPT_ACTION=post-dump"}, name)
		switch {
		case errors.Is(err, unix.ENOEXEC) && !p.tree.isOwnRoot():
			p.note("%s: of another architecture, or broken: it was not tried whether CRIU can call it", p.tree.show(name))
		case err != nil:
			return fmt.Errorf("CRIU would abort every checkpoint and restore, as it could not call %w; "+
				"look whether that file system is mounted with noexec, or choose another --prefix; the files are as before", err)
		}
	}
	return nil
}

// criuPatience is how long a removal waits for CRIU to end: most restores take less.
const criuPatience = 2 * time.Second

// unlessCRIU keeps a file as long as a CRIU runs, which may have read the action
// script's name: it would abort its restore or dump without the script, and cannot
// restore a systemd container without the control groups that the program creates.
func (p *plan) unlessCRIU(name string) func() bool {
	return func() bool {
		if !p.tree.isOwnRoot() {
			return false // the processes are another root's
		}
		for end := time.Now().Add(criuPatience); criuRuns(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				p.note("%s is kept, for the CRIU that runs now; uninstall again when it has ended", p.tree.show(name))
				return true
			}
		}
		return false
	}
}

// criuRuns reports whether a CRIU is at work. One in another pid namespace than this
// process's belongs to a container, and has no configuration of ours; and a container
// calls its processes what it likes.
func criuRuns() bool {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return slices.ContainsFunc(names, func(name string) bool {
		if name[0] < '0' || name[0] > '9' {
			return false
		}
		comm, err := os.ReadFile("/proc/" + name + "/comm")
		if err != nil || !strings.HasPrefix(string(comm), "criu") {
			return false
		}
		namespace, err := os.Readlink("/proc/" + name + "/ns/pid")
		return err == nil && namespace == own
	})
}
