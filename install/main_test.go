package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// The stand-in for criu and ctr, and the program that is installed.
var standIn, program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "install-")
	if err != nil {
		panic(err)
	}
	standIn, program = filepath.Join(dir, "stand-in"), filepath.Join(dir, programName)
	for out, source := range map[string]string{standIn: "./testdata/standin", program: "../cmd/autofs-restore-hook"} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", source, err, text)
			os.Exit(1)
		}
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// machine creates a root directory with a few files. The stand-in for criu writes
// what is in criu.out; no version means no criu.
func machine(t *testing.T, version string, files map[string]string) string {
	t.Helper()
	testenv.RequireRoot(t) // chroot
	root := t.TempDir()
	for _, dir := range []string{"etc", "usr/sbin", "usr/bin", "usr/libexec", "var/lib", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if version != "" {
		copyFile(t, standIn, root+"/usr/sbin/criu")
		put(t, root+"/usr/sbin/criu.out", version)
	}
	for name, text := range files {
		put(t, root+name, text)
	}
	put(t, root+shell+".out", "called\n") // when it runs a script
	copyFile(t, standIn, root+shell)
	return root
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// listing describes all files of a directory: names, modes, owners, links, contents.
func listing(t *testing.T, root string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && find . -printf '%p %y %m %U %G %l\n' | sort && find . -type f -exec cksum {} + | sort -k3`, "list", root).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// unchanged runs a function and reports what it changes in a directory.
func unchanged(t *testing.T, root string, do func()) {
	t.Helper()
	before := listing(t, root)
	do()
	if after := listing(t, root); after != before {
		t.Errorf("the files are not as before:\n%s", string(diff.Diff("before", []byte(before), "after", []byte(after))))
	}
}

func mustInstall(t *testing.T, o Options) *Result {
	t.Helper()
	o.Program = program
	r, err := Install(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustUninstall(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Uninstall(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// refused checks that an installation fails with some text, and changes nothing.
func refused(t *testing.T, o Options, want string) {
	t.Helper()
	unchanged(t, o.Root, func() {
		o.Program = program
		r, err := Install(context.Background(), o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v, want an error with %q", r, err, want)
		}
	})
}
