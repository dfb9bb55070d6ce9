package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const cgroupRoot = "/sys/fs/cgroup"

// listCgroups returns the container's cgroups, parents first.
func listCgroups(id string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(filepath.Join(cgroupRoot, id), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	return dirs, err
}

// removeCgroups removes the container's cgroups. Those in the host's v1
// hierarchies, which the node does not see, are removed when the node ends.
func removeCgroups(id string) error {
	dirs, err := listCgroups(id)
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// errorLines are the lines of a CRIU log that say why it failed.
func errorLines(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
