package waiters

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// accesses are the ways in which a child walks onto the automount at dir/auto.
var accesses = map[string]func(dir string) error{
	"open": func(dir string) error { return second(unix.Open(dir+"/auto/file", unix.O_RDONLY, 0)) },
	"stat": func(dir string) error { var st unix.Stat_t; return unix.Stat(dir+"/auto/file", &st) },
	"relative": func(dir string) error {
		if err := unix.Chdir(dir); err != nil {
			return err
		}
		return second(unix.Open("./auto/../auto/file", unix.O_RDONLY, 0))
	},
	"from a directory": func(dir string) error {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		return second(unix.Openat(fd, "auto/file", unix.O_RDONLY, 0))
	},
	"absolute, with a directory that is ignored": func(dir string) error {
		return second(unix.Openat(0, dir+"/auto/file", unix.O_RDONLY, 0))
	},
	"openat2": func(dir string) error {
		return second(unix.Openat2(unix.AT_FDCWD, dir+"/auto/file", &unix.OpenHow{}))
	},
	"statx":    func(dir string) error { return unix.Statx(unix.AT_FDCWD, dir+"/auto/file", 0, 0, &unix.Statx_t{}) },
	"chdir":    func(dir string) error { return unix.Chdir(dir + "/auto/file") },
	"exec":     func(dir string) error { return unix.Exec(dir+"/auto/file", []string{"x"}, nil) },
	"mkdir":    func(dir string) error { return unix.Mkdir(dir+"/auto/file", 0o755) },
	"readlink": func(dir string) error { return second(unix.Readlink(dir+"/auto/file", make([]byte, 10))) },
}

func second(_ int, err error) error { return err }

// access is what the child does; it hangs.
func access() int {
	// Forgotten children end themselves; a thread in autofs_wait dies of SIGKILL.
	time.AfterFunc(time.Minute, func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) })
	_ = accesses[os.Args[1]](os.Args[2])
	return 0
}

// automount mounts an autofs without a master, and releases its waiters at the end of the
// test.
func automount(t *testing.T) string {
	t.Helper()
	testenv.RequireRoot(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "auto")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	mount, err := autofs.Create(autofs.CreateOptions{PipeWriter: w, Type: autofs.Direct, UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer mount.Close()
	root, err := autofs.Reopen(mount)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := autofs.Catatonic(root); err != nil {
			t.Error(err)
		}
		root.Close()
		if err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFind(t *testing.T) {
	dir := automount(t)
	t.Setenv(roleVariable, "access")
	idle := testenv.Start(t, nil)
	for name := range accesses {
		t.Run(name, func(t *testing.T) {
			c := testenv.StartCommand(t, apart(), "/proc/self/exe", name, dir)
			pid := c.PID()
			var found []Waiter
			testenv.Eventually(t, "a process that waits", func() bool {
				var err error
				found, err = Find([]int{idle.PID(), os.Getpid(), pid, 1<<22 + 1})
				if err != nil {
					t.Fatal(err)
				}
				return len(found) > 0
			})
			if len(found) != 1 || found[0].Path != dir+"/auto/file" || found[0].Command != "exe" {
				t.Errorf("%+v, want %s", found, dir+"/auto/file")
			}
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(found[0].PID)); err != nil {
				t.Errorf("thread %d does not belong to process %d", found[0].PID, pid)
			}
		})
	}
	if found, err := Find(nil); err != nil || found != nil {
		t.Errorf("no waiters: %+v, %v", found, err)
	}
}
