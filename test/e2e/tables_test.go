package e2e

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestLargeTables repairs a container that has 10,000 mounts in one of its mount
// namespaces, and a line of more than 64 KiB in the table of its systemd.
func TestLargeTables(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	r := restoreStale(t, s)
	inMountNamespace(t, r.PID, mountDeep)
	private := r.HostPID(t, r.Units(t)["private-mounts.service"].MainPID)
	inMountNamespace(t, private, func() error { return mountMany(10_000) })
	longest := 0
	for line := range strings.Lines(r.MountTable(t)) {
		longest = max(longest, len(line))
	}
	count := len(lab.Mounts(t, private))
	if count < 10_000 || longest <= 64<<10 {
		t.Fatalf("%d mounts, the longest line has %d bytes: the test proves nothing", count, longest)
	}
	result := lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json")
	t.Logf("%d mounts in a namespace, a line of %d bytes: repaired in %s", count, longest, result.Took)
	if result.Status != 0 {
		t.Errorf("exit status %d\n%s", result.Status, result.Stderr)
	}
	// This test's own parser does not read such lines.
	inMountNamespace(t, r.PID, func() error { return unix.Unmount("/tmp/deep", unix.MNT_DETACH) })
	checkReport(t, lab.ParseReport(t, result.Stdout), r)
	r.CheckAnswers(t, lab.Accesses)
	checkNoWaiters(t, r.Container)
}

// inMountNamespace runs f in the mount namespace of a process.
func inMountNamespace(t *testing.T, pid int, f func() error) {
	t.Helper()
	p, err := nsenter.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), waiterLimit)
	defer cancel()
	if err := p.InMountNamespace(ctx, func(*nsenter.Thread) error { return f() }); err != nil {
		t.Fatal(err)
	}
}

func mountMany(count int) error {
	const dir = "/tmp/many"
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("many", dir, "tmpfs", 0, "")); err != nil {
		return err
	}
	// Otherwise each copy would get all mounts on the others.
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for i := range count {
		path := dir + "/" + strconv.Itoa(i)
		if err := errors.Join(os.Mkdir(path, 0o755), unix.Mount(dir, path, "", unix.MS_BIND, "")); err != nil {
			return err
		}
	}
	return nil
}

// mountDeep mounts on a folder with a long path of blanks: each is four bytes in the
// table.
func mountDeep() error {
	const dir = "/tmp/deep"
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("deep", dir, "tmpfs", 0, ""), unix.Chdir(dir)); err != nil {
		return err
	}
	name := strings.Repeat(" ", 250)
	for range 80 {
		if err := errors.Join(unix.Mkdir(name, 0o755), unix.Chdir(name)); err != nil {
			return err
		}
	}
	return unix.Mount("end", ".", "tmpfs", 0, "")
}
