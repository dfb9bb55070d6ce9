package respawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/cgroup"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// ErrNotPossible means that a process has something that a twin of it could not
// be given from outside.
var ErrNotPossible = errors.New("it cannot be started again from outside of its container")

func notPossible(why string) error { return fmt.Errorf("%w: %s", ErrNotPossible, why) }

// Check looks for what would make a twin of the process impossible, without
// touching it: ErrNotPossible.
func Check(p *nsenter.Process) error {
	_, _, err := look(p)
	return err
}

// look reads the traits of a process, and our own, and checks whether a twin is
// possible.
func look(p *nsenter.Process) (theirs, ours *Twin, err error) {
	if ours, err = ourselves(); err != nil {
		return nil, nil, err
	}
	theirs = &Twin{}
	if theirs.Traits, err = traitsOf(p); err == nil {
		err = errors.Join(theirs.takeOver(), check(theirs, ours))
	}
	return theirs, ours, err
}

// ourselves is what this process has.
func ourselves() (*Twin, error) {
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		return nil, err
	}
	defer self.Close()
	ours := &Twin{}
	if ours.Traits, err = traitsOf(self); err == nil {
		err = ours.takeOver()
	}
	return ours, err
}

func check(theirs, ours *Twin) error {
	if theirs.trait("ns/user") != ours.trait("ns/user") {
		return notPossible("it is in a user namespace")
	}
	if theirs.trait("Seccomp") == "1" {
		return notPossible("it is in seccomp's strict mode")
	}
	if len(theirs.Arguments) == 0 {
		return notPossible("it has no arguments")
	}
	if more := theirs.Bounding &^ ours.Bounding; more != 0 {
		return notPossible(fmt.Sprintf("it may use capabilities that this program does not have (%#x)", more))
	}
	return nil
}

// Capture learns what a process has. The files belong to the twin; the caller
// closes them. If the process runs under seccomp filters it is stopped for a
// moment.
func Capture(ctx context.Context, p *nsenter.Process) (t *Twin, files []*os.File, err error) {
	t, ours, err := look(p)
	if err == nil {
		err = t.read(ctx, p)
	}
	if err != nil {
		return nil, nil, err
	}
	if label := t.trait("attr/current"); label != ours.trait("attr/current") {
		t.Label = execLabel(label)
	}
	if files, err = t.open(p, ours); err == nil {
		err = p.Alive()
	}
	if err != nil {
		Close(files)
		return nil, nil, err
	}
	return t, files, nil
}

// Close closes the files of a twin.
func Close(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// takeOver takes from the traits what has to be set.
func (t *Twin) takeOver() error {
	var errs []error
	number := func(name string, base int) uint64 {
		n, err := strconv.ParseUint(strings.TrimSpace(t.trait(name)), base, 64)
		errs = append(errs, err)
		return n
	}
	t.Inheritable, t.Permitted, t.Bounding, t.Ambient = number("CapInh", 16), number("CapPrm", 16), number("CapBnd", 16), number("CapAmb", 16)
	t.Ignored, t.Personality, t.Umask = number("SigIgn", 16), number("personality", 16), int(number("Umask", 8))
	list := func(name string) []int32 {
		var numbers []int32
		for _, word := range strings.Fields(t.trait(name)) {
			n, err := strconv.ParseUint(word, 10, 32)
			errs = append(errs, err)
			numbers = append(numbers, int32(n))
		}
		return numbers
	}
	copy(t.Users[:], list("Uid"))
	copy(t.UserGroups[:], list("Gid"))
	t.More = list("Groups")
	t.NoNewPrivileges = t.trait("NoNewPrivs") == "1"
	t.Arguments, t.Environment = []byte(t.trait("cmdline")), []byte(t.trait("environ"))
	t.OOM = strings.TrimSpace(t.trait("oom_score_adj"))
	return errors.Join(errs...)
}

// execLabel is what has to be written to /proc/<pid>/attr/exec for a label in
// attr/current: AppArmor says "profile (mode)" and wants "exec profile", SELinux
// takes its label as it is.
func execLabel(current string) string {
	label := strings.TrimRight(current, "\x00\n")
	profile, _, moded := strings.Cut(label, " (")
	if moded || label == "unconfined" {
		return "exec " + profile
	}
	return label
}

// read asks for what /proc does not show.
func (t *Twin) read(ctx context.Context, p *nsenter.Process) error {
	limits, err := limitsOf(t.trait("limits"))
	if err != nil {
		return fmt.Errorf("process %d: /proc/%d/limits: %w", p.PID(), p.PID(), err)
	}
	t.Limits = limits
	schedule, err := unix.SchedGetAttr(p.PID(), 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID(), os.NewSyscallError("sched_getattr", err))
	}
	schedule.Size = unix.SizeofSchedAttr
	t.Schedule = *schedule
	if err := unix.SchedGetaffinity(p.PID(), &t.Affinity); err != nil {
		return fmt.Errorf("process %d: %w", p.PID(), os.NewSyscallError("sched_getaffinity", err))
	}
	if t.Cgroups, err = cgroup.Of(p); err != nil {
		return err
	}
	if t.trait("Seccomp") != "0" && t.trait("Seccomp") != "" {
		t.Filters, err = filtersOf(ctx, p)
	}
	return err
}

// limitsOf reads a table with one line for each resource, in the order of their
// numbers (fs/proc/base.c, proc_pid_limits): a name of 25 characters, the soft and
// the hard limit.
func limitsOf(table string) ([]unix.Rlimit, error) {
	const nameWidth = 25
	var limits []unix.Rlimit
	var errs []error
	number := func(word string) uint64 {
		if word == "unlimited" {
			return unix.RLIM_INFINITY
		}
		n, err := strconv.ParseUint(word, 10, 64)
		errs = append(errs, err)
		return n
	}
	for i, line := range strings.Split(strings.TrimSuffix(table, "\n"), "\n") {
		fields := strings.Fields(line[min(nameWidth, len(line)):])
		switch {
		case i == 0: // the titles
		case len(fields) < 2:
			return nil, fmt.Errorf("odd line %q", line)
		default:
			limits = append(limits, unix.Rlimit{Cur: number(fields[0]), Max: number(fields[1])})
		}
	}
	return limits, errors.Join(errs...)
}

// open opens the twin's files, in their order.
func (t *Twin) open(p *nsenter.Process, ours *Twin) ([]*os.File, error) {
	var files []*os.File
	var errs []error
	take := func(f *os.File, err error) {
		if errs = append(errs, err); err == nil {
			files = append(files, f)
		}
	}
	for _, name := range []string{"exe", "root", "cwd"} {
		take(p.OpenPath(name))
	}
	take(openNull(p))
	for _, kind := range spaceKinds {
		if name := "ns/" + kind; t.trait(name) != ours.trait(name) {
			take(p.OpenProc(name))
			t.Spaces = append(t.Spaces, kind)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return files, err
	}
	if group, err := cgroup.Open(p); err == nil {
		files, t.Grouped = append(files, group), true
	}
	t.Path = pathOf(p, t.trait("exe"))
	return files, nil
}

// openNull opens the container's /dev/null, and nothing else in its place.
func openNull(p *nsenter.Process) (*os.File, error) {
	f, err := p.OpenInRoot("/dev/null", unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	null, err := p.Reopen(f, unix.O_RDWR|unix.O_NOCTTY, func(st *unix.Stat_t) bool {
		return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
	})
	if errors.Is(err, nsenter.ErrFileKind) {
		err = notPossible("/dev/null of its container is something else")
	}
	return null, err
}

// pathOf is the path of a process's program, "" if another file is there.
func pathOf(p *nsenter.Process, want string) string {
	path, err := p.Readlink("exe")
	if err != nil || !strings.HasPrefix(path, "/") {
		return ""
	}
	f, err := p.OpenInRoot(path, unix.O_PATH)
	if err != nil {
		return ""
	}
	defer f.Close()
	if have, err := fileTrait(f); err != nil || have != want {
		return ""
	}
	return path
}
