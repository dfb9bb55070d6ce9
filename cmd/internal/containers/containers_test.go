package containers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// write makes a file below root, which its owner alone can write.
func write(t *testing.T, root, name, text string) string {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// self is the state of a container whose first process is this one, in the words of
// runc and of crun.
func self(t *testing.T) (runc, crun string) {
	t.Helper()
	p, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	return fmt.Sprintf(`{"id":"x","init_process_pid":%d,"init_process_start":%d,"config":{}}`, p.PID(), p.StartTime()),
		fmt.Sprintf(`{"pid":%d,"process-start-time":%d}`, p.PID(), p.StartTime())
}

func TestList(t *testing.T) {
	testenv.RequireRoot(t)
	root := t.TempDir()
	runc, crun := self(t)
	long := strings.Repeat("ab", idLength/2)
	for name, text := range map[string]string{
		"run/runc/web/state.json":                                            runc,
		"run/crun/" + long + "/status":                                       crun,
		"run/containerd/runc/k8s.io/db/state.json":                           runc,
		"run/containerd/runc/k8s.io/cache/status":                            crun,
		"run/docker/runtime-runc/moby/mail/state.json":                       runc,
		"run/runc/ended/state.json":                                          `{"init_process_pid":4194305,"init_process_start":1}`,
		"run/runc/reused/state.json":                                         fmt.Sprintf(`{"init_process_pid":%d,"init_process_start":1}`, os.Getpid()),
		"run/crun/.empty-directory/other":                                    "",
		"var/lib/containers/storage/overlay-containers/containers.json":      `[{"id":"` + long + `","names":["shop"]},{"id":"gone","names":["web"]}]`,
		"var/lib/containers/storage/vfs-containers/volatile-containers.json": `[{"id":"db","names":["a","b"]}]`,
		// podman with a store elsewhere, by its directory
		"else/vfs-containers/volatile-containers.json": `[{"id":"away","names":["far"]},{"id":"off","names":["farther"]}]`,
		"run/crun/away/status":                         strings.Replace(crun, "{", `{"bundle":"`+root+`/else/vfs-containers/away/userdata",`, 1),
		"run/runc/off/state.json":                      strings.Replace(runc, "{}", `{"labels":["x=y","bundle=`+root+`/else/vfs-containers/off/userdata"]}`, 1),
	} {
		write(t, root, name, text)
	}
	list, err := List(root)
	if err != nil {
		t.Error(err)
	}
	got := map[string]string{}
	for _, c := range list {
		got[c.ID] = strings.Join(c.Names, " ")
		if c.PID != os.Getpid() {
			t.Errorf("%s", c)
		}
	}
	want := map[string]string{"web": "", long: "shop", "db": "a b", "cache": "", "mail": "", "away": "far", "off": "farther"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestListHostile has files that must not be believed, beside one that is good.
func TestListHostile(t *testing.T) {
	testenv.RequireRoot(t)
	runc, _ := self(t)
	for name, test := range map[string]struct {
		spoil func(path string) error
		want  string
	}{
		"another owner":   {func(path string) error { return os.Chown(path, 1000, 0) }, "only root can write"},
		"group can write": {func(path string) error { return os.Chmod(path, 0o660) }, "only root can write"},
		"all can write":   {func(path string) error { return os.Chmod(path, 0o602) }, "only root can write"},
		"a link": {func(path string) error {
			return errors.Join(os.Rename(path, path+"~"), os.Symlink(path+"~", path))
		}, "too many levels"},
		"a fifo":          {func(path string) error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) }, "only root can write"},
		"a directory":     {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, "only root can write"},
		"too long":        {func(path string) error { return os.Truncate(path, maxSize+1) }, "longer than"},
		"no JSON":         {func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) }, "unexpected end"},
		"a text":          {func(path string) error { return os.WriteFile(path, []byte(`{"init_process_pid":"1"}`), 0o600) }, "cannot unmarshal"},
		"no process":      {func(path string) error { return os.WriteFile(path, []byte(`{}`), 0o600) }, "must be positive"},
		"a process group": {func(path string) error { return os.WriteFile(path, []byte(`{"init_process_pid":-1}`), 0o600) }, "must be positive"},
	} {
		root := t.TempDir()
		write(t, root, "run/runc/good/state.json", runc)
		bad := write(t, root, "run/runc/bad/state.json", runc)
		if err := test.spoil(bad); err != nil {
			t.Fatal(err)
		}
		list, err := List(root)
		if len(list) != 1 || list[0].ID != "good" || err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	root := t.TempDir()
	write(t, root, "run/runc/good/state.json", runc)
	write(t, root, "var/lib/containers/storage/overlay-containers/containers.json", "[")
	if list, err := List(root); len(list) != 1 || err == nil {
		t.Errorf("broken list of names: %v, %v", list, err)
	}
}

func TestFind(t *testing.T) {
	long := strings.Repeat("ab", idLength/2)
	other := "abff" + long[4:]
	list := []Container{
		{ID: "web", PID: 1, State: "/run/runc/web/state.json"},
		{ID: "abba", PID: 2},
		{ID: long, Names: []string{"shop", "web"}, PID: 3, State: "/run/crun/x/status"},
		{ID: other, Names: []string{"abab"}, PID: 4},
	}
	for word, want := range map[string]any{
		"abba": 2, "shop": 3, long: 3, other: 4, "ababa": 3, "abf": 4,
		"abab": 4, // a whole name before the beginning of an ID
		"web":  "several containers", "ab": "several containers", "": ErrNotFound.Error(), "we": ErrNotFound.Error(), "nginx": `"nginx": no running`,
	} {
		c, err := Find(list, word)
		pid, ok := want.(int)
		switch {
		case ok && (err != nil || c.PID != pid):
			t.Errorf("%q: %v, %v, want process %d", word, c, err, pid)
		case !ok && (err == nil || !strings.Contains(err.Error(), want.(string))):
			t.Errorf("%q: %v, %v, want %q", word, c, err, want)
		}
	}
	if _, err := Find(list, "web"); !strings.Contains(fmt.Sprint(err), "process 1, /run/runc/web/state.json") || !strings.Contains(fmt.Sprint(err), "process 3, /run/crun/x/status") {
		t.Errorf("the choices: %v", err)
	}
}

func TestHasAutofs(t *testing.T) {
	for pid, want := range map[int]bool{os.Getpid(): false, 4194305: false} {
		if got := (Container{PID: pid}).HasAutofs(); got != want {
			t.Errorf("process %d: %v", pid, got)
		}
	}
}
