package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// listCgroups returns the cgroups of these names and all below them, parents
// first.
func listCgroups(names []string) ([]string, error) {
	var dirs []string
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(cgroupRoot, name), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

// removeCgroups removes cgroups and all below them.
func removeCgroups(names []string) error {
	dirs, err := listCgroups(names)
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

// removeHostCgroups removes cgroups in the host's v1 hierarchies, which the node does not
// see. crun's restore makes CRIU create the container's path in each; a leftover makes a
// later restore fail (its cpuset overlaps).
func removeHostCgroups(names []string) error {
	const script = `mount -t tmpfs tmpfs /mnt
sed -n 's/^[1-9][0-9]*:\([^:]*\):.*/\1/p' /proc/self/cgroup | while read -r hierarchy; do
	case $hierarchy in *=*) options=none,$hierarchy ;; *) options=$hierarchy ;; esac
	mkdir "/mnt/$hierarchy" && mount -t cgroup -o "$options" cgroup "/mnt/$hierarchy" || exit
	for name; do
		[ ! -d "/mnt/$hierarchy/$name" ] || find "/mnt/$hierarchy/$name" -depth -type d -exec rmdir {} + || exit
	done
done`
	args := append([]string{"--mount", "--propagation", "private", "sh", "-ec", script, "remove"}, names...)
	_, err := output("unshare", args...)
	return err
}

// killCgroups kills all processes in cgroups.
func killCgroups(names []string) {
	for _, name := range names {
		_ = os.WriteFile(filepath.Join(cgroupRoot, name, "cgroup.kill"), []byte("1"), 0)
	}
}

// announceCgroups adds cgroups to those that the node removes at its end, besides those
// whose names have the prefix LAB_ID (see test/node/enter).
func announceCgroups(names ...string) error {
	file, err := os.OpenFile(filepath.Join(os.Getenv("LAB_SCRATCH"), "cgroups"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteString(strings.Join(names, "\n") + "\n")
	return err
}

// errorLines returns the error lines of a CRIU log, and its last line.
func errorLines(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := slices.Collect(strings.Lines(string(text)))
	var out []string
	for i, line := range lines {
		if strings.Contains(line, "Error") || strings.Contains(line, "Warn") || i >= len(lines)-3 {
			out = append(out, line)
		}
		if strings.Contains(line, "cpuset.cpus: Invalid argument") {
			out = append(out, "(another control group has the processors for itself: grep 1 /sys/fs/cgroup/cpuset/*/cpuset.cpu_exclusive on the host)\n")
		}
	}
	return strings.Join(out, "")
}

// describeMembers lists the processes in the control groups.
func describeMembers(names []string) string {
	var text strings.Builder
	dirs, _ := listCgroups(names)
	for _, dir := range dirs {
		frozen, _ := os.ReadFile(filepath.Join(dir, "cgroup.freeze"))
		members, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(members)) {
			line := func(name string) string {
				text, _ := os.ReadFile(filepath.Join("/proc", pid, name))
				return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
			}
			stat, _, _ := strings.Cut(line("status"), "Tgid")
			fmt.Fprintf(&text, "\n%s (frozen %s): %s %q %q in %s", dir, strings.TrimSpace(string(frozen)), pid, line("cmdline"), stat, line("wchan"))
		}
	}
	return text.String()
}
