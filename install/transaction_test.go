package install

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConcurrentChange keeps what another process wrote between plan and commit.
func TestConcurrentChange(t *testing.T) {
	for name, interfere := range map[string]func(t *testing.T, path string){
		"written":  func(t *testing.T, path string) { put(t, path, "longer\n") },
		"replaced": func(t *testing.T, path string) { put(t, path+".new", "new\n"); rename(t, path+".new", path) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root+"/first", "old\n")
			put(t, root+"/second", "old\n")
			tree, err := openTree(root)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.close()
			x := &transaction{tree: tree}
			for _, path := range []string{"/first", "/second"} {
				before, err := tree.readText(path)
				if err != nil {
					t.Fatal(err)
				}
				x.changes = append(x.changes, &change{path: path, before: before, after: []byte("ours\n")})
			}
			interfere(t, root+"/second")
			unchanged(t, root, func() {
				if err := x.apply(nil); !errors.Is(err, errChanged) {
					t.Error(err)
				}
			})
		})
	}
	t.Run("appeared", func(t *testing.T) {
		root := t.TempDir()
		tree, err := openTree(root)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.close()
		x := &transaction{tree: tree, changes: []*change{{path: "/first", after: []byte("ours\n")}}}
		put(t, root+"/first", "theirs\n")
		unchanged(t, root, func() {
			if err := x.apply(nil); !errors.Is(err, errChanged) {
				t.Error(err)
			}
		})
	})
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TestModes shows that modes do not depend on the umask, that a rewritten file keeps its
// extended attributes, and that the temporary files of a killed run are removed.
func TestModes(t *testing.T) {
	root := machine(t, version4, map[string]string{CRIUFile: "x\n"})
	const label = "user.test"
	if err := unix.Setxattr(root+CRIUFile, label, []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	left := filepath.Dir(root+CRIUFile) + "/" + temporaryPrefix + "1-2-old" + temporarySuffix
	put(t, left, "x\n")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	mustInstall(t, Options{Root: root, Engines: []Engine{CRIU, Podman}})
	for path, want := range map[string]os.FileMode{
		"/usr/libexec/oci": 0o755, "/usr/libexec/oci/hooks.d/autofs-restore-hook": 0o755, HooksDirectory: 0o755, hookFile: 0o644, CRIUFile: 0o644,
	} {
		if info, err := os.Stat(root + path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	value := make([]byte, 100)
	if n, err := unix.Getxattr(root+CRIUFile, label, value); err != nil || string(value[:n]) != "value" {
		t.Errorf("extended attribute %q, %v", value[:max(n, 0)], err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("a temporary file is left")
	}
}
