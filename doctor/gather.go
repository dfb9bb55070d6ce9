package doctor

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

// capabilities are the ones that the program needs on the host.
var capabilities = []struct {
	bit  int
	name string
}{
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE"},
	{unix.CAP_SYS_CHROOT, "CAP_SYS_CHROOT"},
	{unix.CAP_KILL, "CAP_KILL"},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"},
	{unix.CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"},
}

// Inode numbers of the machine's own namespaces (include/linux/proc_ns.h).
const (
	initialUser = "user:[4026531837]"
	initialPID  = "pid:[4026531836]"
)

// Gather collects the facts of this machine. reports is the directory of the program's
// reports.
func Gather(ctx context.Context, version, reports string) (*Facts, error) {
	f := &Facts{Version: version, Root: os.Geteuid() == 0}
	user, _ := os.Readlink("/proc/self/ns/user")
	pid, _ := os.Readlink("/proc/self/ns/pid")
	f.InitialUser, f.InitialPID = user == initialUser, pid == initialPID
	for line := range strings.Lines(text("/proc/self/status")) {
		value, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		for _, c := range capabilities {
			if err != nil || set&(1<<c.bit) == 0 {
				f.Missing = append(f.Missing, c.name)
			}
		}
	}
	f.Kernel = strings.TrimSpace(text("/proc/sys/kernel/osrelease"))
	for line := range strings.Lines(text("/proc/filesystems")) {
		f.Autofs = f.Autofs || strings.TrimPrefix(strings.TrimSpace(line), "nodev\t") == "autofs"
	}
	if d, err := os.OpenFile("/dev/autofs", os.O_RDONLY, 0); err != nil {
		f.Device = err.Error()
	} else {
		d.Close()
	}
	f.Features = features()
	f.Cgroup = cgroups()
	switch strings.TrimSpace(text("/sys/fs/selinux/enforce")) {
	case "1":
		f.Security = append(f.Security, "SELinux, enforcing")
	case "0":
		f.Security = append(f.Security, "SELinux, permissive")
	}
	if strings.TrimSpace(text("/sys/module/apparmor/parameters/enabled")) == "Y" {
		f.Security = append(f.Security, "AppArmor")
	}
	f.Reports = readReports(reports)
	var err error
	f.Survey, err = install.NewSurvey(ctx, "/")
	return f, err
}

// maxText bounds the length of a file that is read, in bytes.
const maxText = 1 << 20

// text returns the content of a file, "" if it cannot be read.
func text(name string) string {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxText))
	if err != nil {
		return ""
	}
	return string(data)
}

// cgroups returns the version of control groups, "" without any.
func cgroups() string {
	const root = "/sys/fs/cgroup"
	var st unix.Statfs_t
	switch err := unix.Statfs(root, &st); {
	case err != nil:
		return ""
	case st.Type == unix.CGROUP2_SUPER_MAGIC:
		return "2"
	case unix.Statfs(root+"/unified", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC:
		return "1+2"
	}
	return "1"
}

// maxReports bounds the number of reports that are read, newest first.
const maxReports = 20

func readReports(dir string) []Report {
	names, _ := filepath.Glob(dir + "/*.json")
	modified := map[string]time.Time{}
	for _, name := range names {
		if info, err := os.Lstat(name); err == nil {
			modified[name] = info.ModTime()
		}
	}
	newest := slices.SortedFunc(maps.Keys(modified), func(a, b string) int { return modified[b].Compare(modified[a]) })
	var list []Report
	for _, name := range newest[:min(len(newest), maxReports)] {
		r := Report{}
		if err := json.Unmarshal([]byte(text(name)), &r); err != nil {
			r = Report{Container: strings.TrimSuffix(filepath.Base(name), ".json"), Outcome: "unreadable", Error: err.Error()}
		}
		list = append(list, r)
	}
	return list
}
