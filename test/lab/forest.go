package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// Forest has the mounts of all mount namespaces of a container. The key of a namespace is
// the pid of its first process inside the container, which a restore does not change.
type Forest map[string][]*mountinfo.Info

// Forest reads the mount tables of the container.
func (c *Container) Forest(t testing.TB) Forest {
	t.Helper()
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	first := make(map[string]int) // by mount namespace
	f := make(Forest)
	for _, p := range processes() {
		dir := fmt.Sprintf("/proc/%d", p)
		if pid, err := os.Readlink(dir + "/ns/pid"); err != nil || pid != namespace {
			continue
		}
		mnt, err := os.Readlink(dir + "/ns/mnt")
		if err != nil {
			continue // it has ended
		}
		inside := insideNumber(dir + "/status")
		if inside > 0 && (first[mnt] == 0 || inside < first[mnt]) {
			first[mnt] = inside
			f[mnt] = Mounts(t, p)
		}
	}
	for _, table := range f {
		for _, m := range table {
			m.VFSOptions = insideGroup(m.VFSOptions)
		}
	}
	for mnt, inside := range first {
		f[strconv.Itoa(inside)] = f[mnt]
		delete(f, mnt)
	}
	return f
}

// CaptureScript returns a part of an action script that at the given stage copies the
// mount tables and states of all processes of the container into a folder, for
// [ReadCapture].
func CaptureScript(stage, dir string) string {
	return fmt.Sprintf(`if [ "$CRTOOLS_SCRIPT_ACTION" = %s ]; then
	for p in /proc/[0-9]*; do
		[ "$p/ns/pid" -ef "/proc/$CRTOOLS_INIT_PID/ns/pid" ] || continue
		mkdir -p %[2]s$p
		for name in mountinfo status; do cat "$p/$name" >"%[2]s$p/$name"; done
		readlink "$p/ns/mnt" >"%[2]s$p/mnt"
	done
fi
`, stage, dir)
}

// ReadCapture reads the files of [CaptureScript].
func ReadCapture(t testing.TB, dir string) Forest {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "proc/*/mountinfo"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: the action script captured no mount table (%v)", dir, err)
	}
	first := make(map[string]int)
	from := make(map[string]string)
	for _, file := range files {
		mnt, err := os.ReadFile(filepath.Join(filepath.Dir(file), "mnt"))
		if err != nil {
			t.Fatal(err)
		}
		inside := insideNumber(filepath.Join(filepath.Dir(file), "status"))
		if key := string(mnt); first[key] == 0 || inside < first[key] {
			first[key], from[key] = inside, file
		}
	}
	f := make(Forest)
	for mnt, file := range from {
		text, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		table, err := mountinfo.GetMountsFromReader(text, nil)
		text.Close()
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		f[strconv.Itoa(first[mnt])] = table
	}
	return f
}

var processGroup = regexp.MustCompile(`,pgrp=(\d+)`)

// insideGroup replaces the master's process group by its number inside the container,
// which a restore does not change.
func insideGroup(options string) string {
	return processGroup.ReplaceAllStringFunc(options, func(option string) string {
		status := "/proc/" + strings.TrimPrefix(option, ",pgrp=") + "/status"
		return fmt.Sprintf(",pgrp=%d", insideNumber(status))
	})
}

// insideNumber returns the number of a process in its own pid namespace.
func insideNumber(status string) int {
	text, _ := os.ReadFile(status)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "NSpid:" {
			n, _ := strconv.Atoi(fields[len(fields)-1])
			return n
		}
	}
	return 0
}

// pipeIno matches the inode number of a pipe, which no restore can preserve.
var pipeIno = regexp.MustCompile(`,pipe_ino=\d+`)

// Describe describes the forest without ids: two forests with the same lines differ only
// in mount ids, device numbers, peer group ids and the inode numbers of pipes. A peer
// group is described by its members.
func (f Forest) Describe() []string { return f.describe(true) }

// DescribePropagation is Describe without the options of file systems.
func (f Forest) DescribePropagation() []string { return f.describe(false) }

func (f Forest) describe(options bool) []string {
	groups := make(map[string][]string)
	for name, table := range f {
		for _, m := range table {
			for field := range strings.FieldsSeq(m.Optional) {
				if id, shared := strings.CutPrefix(field, "shared:"); shared {
					groups[id] = append(groups[id], name+":"+where(table, m))
				}
			}
		}
	}
	var lines []string
	for name, table := range f {
		for _, m := range table {
			line := fmt.Sprintf("%s: %s root %s %s %s %s", name, where(table, m), m.Root, m.Options, m.FSType, m.Source)
			if options {
				line += " " + pipeIno.ReplaceAllString(m.VFSOptions, "")
			}
			for field := range strings.FieldsSeq(m.Optional) {
				kind, id, _ := strings.Cut(field, ":")
				slices.Sort(groups[id])
				line += fmt.Sprintf(" %s:[%s]", kind, strings.Join(groups[id], ", "))
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// where identifies a mount by its path and the mounts beneath it at the same path.
func where(table []*mountinfo.Info, m *mountinfo.Info) string {
	text := fmt.Sprintf("%q", m.Mountpoint)
	for _, p := range table {
		if p.ID == m.Parent && p.Mountpoint == m.Mountpoint && p.ID != m.ID {
			return where(table, p) + "<" + m.FSType
		}
	}
	return text
}

// Changes lists the lines of only one of two descriptions.
func Changes(before, after []string) []string {
	count := make(map[string]int)
	for _, line := range before {
		count[line]++
	}
	var changes []string
	for _, line := range after {
		if count[line]--; count[line] < 0 {
			changes = append(changes, "+ "+line)
		}
	}
	for _, line := range before {
		if count[line] > 0 {
			count[line]--
			changes = append(changes, "- "+line)
		}
	}
	return changes
}
