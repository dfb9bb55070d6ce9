package respawn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Twin is what a process has, but for the files that Capture returns beside it:
// together they are all that it takes to start the same process again. It can
// be written down.
type Twin struct {
	// Arguments and Environment are as in /proc/<pid>/cmdline and environ.
	Arguments   []byte `json:"arguments"`
	Environment []byte `json:"environment"`
	// Path is where the container has the program, "" if that is another file
	// by now or was removed: then the file itself is executed.
	Path string `json:"path"`
	// Users and UserGroups are the real, effective and saved numbers.
	Users      [3]int32 `json:"users"`
	UserGroups [3]int32 `json:"user_groups"`
	More       []int32  `json:"supplementary_groups"`

	Inheritable uint64 `json:"inheritable"`
	Permitted   uint64 `json:"permitted"`
	Bounding    uint64 `json:"bounding"`
	Ambient     uint64 `json:"ambient"`

	Ignored         uint64   `json:"ignored_signals"`
	NoNewPrivileges bool     `json:"no_new_privileges"`
	Filters         []Filter `json:"filters"`
	// Label is what to write to /proc/<pid>/attr/exec, "" for nothing.
	Label string `json:"label"`

	Umask       int                 `json:"umask"`
	Personality uint64              `json:"personality"`
	OOM         string              `json:"oom_score_adj"`
	Limits      []unix.Rlimit       `json:"limits"`
	Schedule    unix.SchedAttr      `json:"schedule"`
	Affinity    unix.CPUSet         `json:"affinity"`
	Cgroups     []cgroup.Membership `json:"cgroups"`

	// Spaces are the kinds of the namespaces whose files come after the fixed
	// ones; Grouped is whether the directory of the control group of version 2
	// is the last file.
	Spaces  []string `json:"spaces"`
	Grouped bool     `json:"grouped"`
	// Traits are what the kernel says of the process, to be compared.
	Traits []Trait `json:"traits"`
}

// The first files of a twin; namespaces follow.
const (
	fileExecutable = iota
	fileRoot
	fileDirectory
	fileNull
	fileSpaces
)

// Trait is one thing that the kernel says of a process.
type Trait struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// statusLines are the lines of /proc/<pid>/status that twins have in common.
var statusLines = []string{
	"Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
	"NoNewPrivs", "Seccomp", "Seccomp_filters", "SigIgn", "Cpus_allowed", "Mems_allowed",
}

// procFiles are the files of /proc/<pid> whose whole content twins have in
// common. Those that a kernel does not have are left out.
var procFiles = []string{"cmdline", "environ", "limits", "oom_score_adj", "cgroup", "personality", "attr/current"}

// spaceKinds are all kinds of namespaces, in the order of entering: the mount
// namespace last, since paths lead elsewhere then.
var spaceKinds = []string{"user", "cgroup", "ipc", "uts", "net", "time", "pid", "mnt"}

// maxFile bounds what is read of a file in /proc that the container fills:
// arguments and environment may have some megabytes.
const maxFile = 8 << 20

// traitsOf asks the kernel about a process.
func traitsOf(p *nsenter.Process) ([]Trait, error) {
	var traits []Trait
	add := func(name, value string, err error) error {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
			return nil // not in this kernel
		}
		traits = append(traits, Trait{name, value})
		return err
	}
	data, err := p.ReadFile("status", 1<<16)
	errs := []error{err}
	for _, line := range strings.Split(string(data), "\n") {
		if name, value, _ := strings.Cut(line, ":"); slices.Contains(statusLines, name) {
			errs = append(errs, add(name, strings.TrimSpace(value), nil))
		}
	}
	for _, name := range procFiles {
		data, err := p.ReadFile(name, maxFile)
		errs = append(errs, add(name, string(data), err))
	}
	for _, kind := range spaceKinds {
		link, err := p.Readlink("ns/" + kind)
		errs = append(errs, add("ns/"+kind, link, err))
	}
	for _, name := range []string{"root", "cwd", "exe"} {
		value, err := pathTrait(p, name)
		errs = append(errs, add(name, value, err))
	}
	return traits, errors.Join(append(errs, p.Alive())...)
}

// pathTrait names the file that a link of /proc/<pid> leads to.
func pathTrait(p *nsenter.Process, name string) (string, error) {
	f, err := p.OpenPath(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return fileTrait(f)
}

func fileTrait(f *os.File) (string, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return "", &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	return fmt.Sprintf("mount %d, device %d:%d, inode %d", st.Mnt_id, st.Dev_major, st.Dev_minor, st.Ino), nil
}

// ErrDiffers means that a twin would not have been one.
var ErrDiffers = errors.New("a new process would not be like the old one")

// compare returns ErrDiffers with the first thing that differs.
func compare(want, have []Trait) error {
	for i, w := range want {
		if i < len(have) && have[i] == w {
			continue
		}
		if w.Name == "environ" {
			return fmt.Errorf("%w: it has another environment", ErrDiffers) // which may hold secrets
		}
		got := ""
		if i < len(have) {
			got = have[i].Value
		}
		return fmt.Errorf("%w: %s is %s instead of %s", ErrDiffers, w.Name, brief(got), brief(w.Value))
	}
	return nil
}

// brief quotes the beginning of what may have been chosen by the container.
func brief(text string) string {
	const enough = 80 // bytes
	if len(text) > enough {
		return strconv.Quote(text[:enough]) + "..."
	}
	return strconv.Quote(text)
}

// words splits what the kernel separates, and ends, with zeros.
func words(data []byte) []string {
	if len(data) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(data, []byte{0})), "\x00")
}

func (t *Twin) trait(name string) string {
	for _, trait := range t.Traits {
		if trait.Name == name {
			return trait.Value
		}
	}
	return ""
}
