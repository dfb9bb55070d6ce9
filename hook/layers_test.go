package hook

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// layers are the packages of the program, from the bottom up. A package imports only
// packages of its own layer and of lower ones; docs/architecture.md explains them.
var layers = [][]string{
	{"hook/sys", "hook/stage"},
	{"nsenter"},
	{ // each has one subject: of the kernel, of CRIU or of this program
		"hook/anondev", "hook/autofs", "hook/cgroup", "hook/criuimage", "hook/forecast", "hook/master", "hook/mounts",
		"hook/owner", "hook/park", "hook/ptrace", "hook/waiters",
		"hook/helper/clone", "hook/helper/fdstore", "hook/helper/remover", "hook/helper/spawn",
	},
	{"hook/systemd", "hook/automount"},
	{"hook/container"},
	{"hook/plan"},
	{"hook/report"},
	{"hook/journal"},
	{"hook/cure"},
	{"hook"},
}

// TestLayers: no dependency points up, and each package has a layer.
func TestLayers(t *testing.T) {
	const module = "github.com/autofs-restore-hook/autofs-restore-hook/"
	layer := map[string]int{}
	for i, packages := range layers {
		for _, p := range packages {
			layer[p] = i
		}
	}
	seen := map[string]bool{}
	for _, root := range []string{"../hook", "../nsenter"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(filepath.Dir(path), "test") {
				return err
			}
			from := strings.TrimPrefix(filepath.Dir(path), "../")
			seen[from] = true
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, spec := range f.Imports {
				name, err := strconv.Unquote(spec.Path.Value)
				to, ours := strings.CutPrefix(name, module)
				if err == nil && ours && layer[to] > layer[from] {
					t.Errorf("%s: %s imports %s, which is above it", path, from, to)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for p := range seen {
		if _, ok := layer[p]; !ok {
			t.Errorf("%s has no layer", p)
		}
	}
	for p := range layer {
		if !seen[p] {
			t.Errorf("there is no package %s", p)
		}
	}
}
