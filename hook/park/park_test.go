package park

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/waiters"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == fdstore.Verb {
		if fdstore.Run(os.Args[2:]) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

// space is a mount namespace of its own with automounts that no process serves.
type space struct {
	process *nsenter.Process
}

// newSpace starts a process in a copy of the mount namespace of another one.
func newSpace(t *testing.T, from *space, propagation uintptr) *space {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command("cat") // ends with its standard input
	cmd.Stdin = read
	start := cmd.Start
	if from == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	} else {
		// Go's Unshareflags would make everything private.
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		start = func() error { return from.do(func(*nsenter.Thread) error { return cmd.Start() }) }
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		write.Close()
		_ = cmd.Wait()
	})
	s := &space{}
	if s.process, err = nsenter.Open(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.process.Close() })
	s.run(t, func(*nsenter.Thread) error { return unix.Mount("", "/", "", unix.MS_REC|propagation, "") })
	return s
}

func (s *space) do(f func(*nsenter.Thread) error) error {
	return s.process.InMountNamespace(context.Background(), f)
}

func (s *space) run(t *testing.T, f func(*nsenter.Thread) error) {
	t.Helper()
	if err := s.do(f); err != nil {
		t.Fatal(err)
	}
}

// automount mounts an autofs of ours at a new folder below /mnt.
func (s *space) automount(t *testing.T, name string) *Lot {
	t.Helper()
	var dead *Lot
	s.run(t, func(*nsenter.Thread) (err error) { // in the namespace of its users
		dead, err = New(0)
		return err
	})
	t.Cleanup(func() {
		_ = dead.Close()
	})
	s.run(t, func(*nsenter.Thread) error {
		path := filepath.Join("/mnt", name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		return unix.MoveMount(int(dead.Tree.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	})
	return dead
}

// trigger opens an automount in the namespace.
func (s *space) trigger(t *testing.T, name string) Trigger {
	t.Helper()
	control, err := autofs.OpenControl()
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	table, err := mounts.Of(s.process)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range table.Autofs() {
		if m.Mountpoint != filepath.Join("/mnt", name) {
			continue
		}
		p := Trigger{Process: s.process, Device: mounts.DeviceOf(m), Propagation: mounts.PropagationOf(m)}
		s.run(t, func(*nsenter.Thread) error {
			p.Root, err = control.OpenMount(m.Mountpoint, p.Device)
			return err
		})
		t.Cleanup(func() { p.Root.Close() })
		return p
	}
	t.Fatalf("no autofs at %s", name)
	return Trigger{}
}

func (s *space) count(t *testing.T) int {
	t.Helper()
	table, err := mounts.Of(s.process)
	if err != nil {
		t.Fatal(err)
	}
	return len(table.Autofs())
}

// serveAt does what a new master does: it releases the waiters and mounts content.
func (s *space) serveAt(t *testing.T, name string, p Trigger) {
	t.Helper()
	if err := autofs.Release(p.Root); err != nil {
		t.Fatal(err)
	}
	s.run(t, func(*nsenter.Thread) error {
		path := filepath.Join("/mnt", name)
		if err := unix.Mount("content", path, "tmpfs", 0, ""); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(path, "hello"), []byte(name), 0o644)
	})
}

// toucher is a process that reads a file.
type toucher struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan error
}

func (s *space) touch(t *testing.T, name string) *toucher {
	t.Helper()
	p := &toucher{cmd: exec.Command("cat", filepath.Join("/mnt", name, "hello")), ended: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.run(t, func(*nsenter.Thread) error { return p.cmd.Start() })
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	end := time.Now().Add(testenv.Patience)
	for len(waiting(t, p)) == 0 {
		if time.Now().After(end) {
			t.Fatalf("the process that touches %s does not wait", name)
		}
		time.Sleep(time.Millisecond)
	}
	return p
}

func waiting(t *testing.T, list ...*toucher) []waiters.Waiter {
	t.Helper()
	var pids []int
	for _, p := range list {
		pids = append(pids, p.cmd.Process.Pid)
	}
	found, err := waiters.Find(pids)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (p *toucher) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case err := <-p.ended:
		if got := strings.TrimSpace(p.output.String()); got != want {
			t.Errorf("process %d read %q (%v), want %q", p.cmd.Process.Pid, got, err, want)
		}
	case <-time.After(testenv.Patience):
		t.Errorf("process %d still waits", p.cmd.Process.Pid)
	}
}

func unannounced(uint64) error { return nil }

// TestTransparent replaces the master of several mounts while processes wait
// on them, in two mount namespaces, connected in each way.
func TestTransparent(t *testing.T) {
	testenv.RequireRoot(t)
	for name, propagation := range map[string][2]uintptr{
		"private": {unix.MS_PRIVATE, unix.MS_PRIVATE}, "peers": {unix.MS_SHARED, unix.MS_SHARED}, "slave": {unix.MS_SHARED, unix.MS_SLAVE},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t, nil, unix.MS_PRIVATE)
			s.run(t, func(*nsenter.Thread) error { return unix.Mount("base", "/mnt", "tmpfs", 0, "") })
			s.run(t, func(*nsenter.Thread) error { return unix.Mount("", "/", "", unix.MS_REC|propagation[0], "") })
			names := []string{"one", "two", "three"}
			for _, n := range names {
				s.automount(t, n)
			}
			nested := newSpace(t, s, propagation[1])
			var list []*toucher
			var triggers []Trigger
			for _, n := range names {
				triggers = append(triggers, s.trigger(t, n), nested.trigger(t, n))
			}
			for _, n := range names[:2] { // the third has no waiters
				list = append(list, s.touch(t, n), s.touch(t, n), nested.touch(t, n))
			}
			before := waiting(t, list...)
			if len(before) != len(list) {
				t.Fatalf("%d wait, want %d", len(before), len(list))
			}
			g, err := Park(context.Background(), triggers, func() int { return waiters.CountBlocked(before) }, unannounced)
			if err != nil {
				t.Fatal(err)
			}
			if n := waiters.CountBlocked(before); n != 0 {
				t.Errorf("%d processes have not moved", n)
			}
			testenv.Eventually(t, "all processes wait in the lot", func() bool { return len(waiting(t, list...)) == len(list) })
			for _, sp := range []*space{s, nested} {
				if n := sp.count(t); n != len(names) {
					t.Errorf("%d autofs mounts with all waiters in the lot, want %d", n, len(names))
				}
			}
			for i, n := range names[:2] {
				s.serveAt(t, n, triggers[2*i])
				if name == "private" {
					nested.serveAt(t, n, triggers[2*i+1])
				}
			}
			time.Sleep(20 * time.Millisecond)
			if now := waiting(t, list...); len(now) != len(list) {
				t.Errorf("%d processes are held back by the lot, want %d", len(now), len(list))
			}
			if err := g.Release(context.Background()); err != nil {
				t.Error(err)
			}
			for i, p := range list {
				p.expect(t, names[i/3])
			}
		})
	}
}

// TestAbandoned ends a lot that is not resumed: its waiters get an error.
func TestAbandoned(t *testing.T) {
	testenv.RequireRoot(t)
	s := newSpace(t, nil, unix.MS_PRIVATE)
	s.run(t, func(*nsenter.Thread) error { return unix.Mount("base", "/mnt", "tmpfs", 0, "") })
	s.automount(t, "one")
	p := s.trigger(t, "one")
	list := []*toucher{s.touch(t, "one"), s.touch(t, "one")}
	before := waiting(t, list...)
	g, err := Park(context.Background(), []Trigger{p}, func() int { return waiters.CountBlocked(before) }, unannounced)
	if err != nil {
		t.Fatal(err)
	}
	s.serveAt(t, "one", p)
	// What the guard does.
	if err := autofs.Release(g.lot.Root); err != nil {
		t.Error(err)
	}
	for _, c := range list {
		c.expect(t, "cat: /mnt/one/hello: No such file or directory")
	}
	if err := g.Release(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestCurrentToken sees the kernel's counter grow.
func TestCurrentToken(t *testing.T) {
	testenv.RequireRoot(t)
	var last uint32
	for i := range 3 {
		token, err := autofs.CurrentToken()
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && token <= last {
			t.Errorf("token %d after %d", token, last)
		}
		last = token
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), fmt.Sprintf(" %s ", Source)) {
		t.Errorf("the scratch mount is seen here (%v)", err)
	}
}
