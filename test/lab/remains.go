package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Running lists the processes of the node that run the program under test.
func Running() []string {
	var found []string
	for _, p := range processes() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p))
		// If the container has CAP_SYS_PTRACE the program is a copy in a memfd.
		if exe = strings.TrimSuffix(exe, " (deleted)"); err != nil || exe != Hook() && exe != "/memfd:autofs-restore-hook" {
			continue
		}
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
		found = append(found, fmt.Sprintf("%d %s", p, strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " ")))
	}
	return found
}

// WaitNoneRunning reports processes of the program that still run after the limit, and
// returns how long the last one ran.
func WaitNoneRunning(t testing.TB, limit time.Duration) time.Duration {
	t.Helper()
	started := time.Now()
	for {
		left := Running()
		if len(left) == 0 {
			return time.Since(started)
		}
		if time.Since(started) > limit {
			t.Errorf("after %s processes of the program are left: %q", limit, left)
			return time.Since(started)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// RunFiles returns the program's files in its run directory, relative to that.
func RunFiles(t testing.TB) []string {
	t.Helper()
	const dir = "/run/autofs-restore-hook"
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// FreeNumber returns the lowest free anonymous device number (its minor), once that has
// been stable for a while: the last superblocks of a container that has ended are freed a
// little later.
func FreeNumber(t testing.TB) uint32 {
	t.Helper()
	lockNumbers(t)
	last, same := lowestFree(t), 0
	for range 200 {
		time.Sleep(10 * time.Millisecond)
		if now := lowestFree(t); now != last {
			last, same = now, 0
		} else if same++; same == 2 {
			break
		}
	}
	return last
}

func lowestFree(t testing.TB) uint32 {
	t.Helper()
	n := &Numbers{}
	defer n.Release()
	minor, err := n.hold()
	if err != nil {
		t.Fatal(err)
	}
	return minor
}

// WaitNumberFree fails the test if the lowest free number stays above a former one: a
// superblock was left.
func WaitNumberFree(t testing.TB, former uint32, limit time.Duration) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for now := lowestFree(t); now > former; now = lowestFree(t) {
		if time.Now().After(deadline) {
			t.Errorf("the lowest free device number is 0:%d, before it was 0:%d: a superblock is left", now, former)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// KeepOnly releases all numbers but the one with the given minor.
func (n *Numbers) KeepOnly(t testing.TB, minor int) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	var kept []*os.File
	for _, f := range n.files {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if unix.Minor(st.Dev) == uint32(minor) {
			kept = append(kept, f)
		} else {
			f.Close()
		}
	}
	n.files = kept
	if len(kept) != 1 {
		t.Fatalf("device number 0:%d is taken by another file system", minor)
	}
}

// Files returns the open files of each process of the container, by the pids inside the
// container.
func (c *Container) Files(t testing.TB) []string {
	t.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range processes() {
		dir := fmt.Sprintf("/proc/%d", p)
		if ns, err := os.Readlink(dir + "/ns/pid"); err != nil || ns != namespace {
			continue
		}
		entries, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		for _, e := range entries {
			target, err := os.Readlink(filepath.Join(dir, "fd", e.Name()))
			if err != nil {
				continue
			}
			kind, _, _ := strings.Cut(target, ":[") // the inode number of a pipe changes with a restore
			lines = append(lines, fmt.Sprintf("process %d: %s -> %s", insideNumber(dir+"/status"), e.Name(), kind))
		}
	}
	slices.Sort(lines)
	return lines
}

// KillRemains ends the remains of a failed restore: a killed CRIU leaves the processes
// that it was restoring, and runc the name of the container.
func (cp *Checkpoint) KillRemains(t testing.TB) {
	t.Helper()
	err := os.WriteFile(filepath.Join(cgroupRoot, cp.container.ID, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	cp.container.Kill(t)
	if err := os.RemoveAll(filepath.Join("/run/runc", cp.container.ID)); err != nil {
		t.Fatal(err)
	}
}
