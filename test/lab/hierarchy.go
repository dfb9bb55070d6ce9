package lab

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// cgroupRoot is where the node shows the hierarchy of version 2.
var cgroupRoot = "/sys/fs/cgroup"

// version1 is whether the node has the hierarchies of version 1, too.
var version1 bool

// HasVersion1 reports whether the host has hierarchies of version 1.
func HasVersion1(t testing.TB) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), func(line string) bool { return !strings.HasPrefix(line, "0::") })
}

// UseVersion1 gives the node the control groups of a machine that boots with version 1,
// until the test ends: all hierarchies of version 1 that the host has, and that of
// version 2 beside them (systemd, file-hierarchy(7)). Without the latter a systemd in a
// container uses the top of version 2, which is the host's.
func UseVersion1(t testing.TB) {
	t.Helper()
	const script = `umount /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
sed -n 's/^[1-9][0-9]*:\([^:]*\):.*/\1/p' /proc/self/cgroup | while read -r hierarchy; do
	case $hierarchy in *=*) options=none,$hierarchy ;; *) options=$hierarchy ;; esac
	name=${hierarchy#name=}
	mkdir "/sys/fs/cgroup/$name" && mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/$name"
done
mkdir "$1" && mount -t cgroup2 cgroup2 "$1"
mount -o remount,ro /sys/fs/cgroup`
	const root = "/sys/fs/cgroup/unified"
	pure := cgroupRoot
	t.Cleanup(func() {
		cgroupRoot, version1 = pure, false
		if _, err := output("sh", "-ec", `umount --recursive "$0" && mount -t cgroup2 cgroup2 "$0"`, pure); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := output("sh", "-ec", script, "version1", root); err != nil {
		t.Fatal(err)
	}
	cgroupRoot, version1 = root, true
}
