package automount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// ErrNoMasterMap means that an automount daemon would not find its master map.
var ErrNoMasterMap = errors.New("its master map is missing: on SIGHUP it would give up all of its mounts; restore the map, then repair again")

// ErrSignalKills means that SIGHUP would kill a process.
var ErrSignalKills = errors.New("it does not handle SIGHUP, which would kill it: restart it by other means, then repair again")

// CanReload checks that an automount daemon can be sent SIGHUP; the error wraps
// ErrSignalKills or ErrNoMasterMap. The daemon takes signals by sigwait(3) once it is
// ready (daemon/automount.c, autofs 5.1.9). On SIGHUP it shuts down each mount that has no
// entry in the master map, including all mounts if there is no map
// (daemon/master.c, master_mount_mounts). CanReload looks for a map in a file, and assumes
// that one from a directory service exists.
//
// The container's files may be on a file system that does not answer, so it times out
// after 2 seconds.
func CanReload(ctx context.Context, daemon *nsenter.Process) error {
	if handled, err := handlesHangup(daemon); err != nil || !handled {
		return cmp.Or(err, fmt.Errorf("automount %d: %w", daemon.PID(), ErrSignalKills))
	}
	line, err := daemon.ReadFile("cmdline", 1<<20)
	if err != nil {
		return err
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	ctx, cancel := context.WithTimeout(ctx, configTime)
	defer cancel()
	found := make(chan error, 1)
	go func() {
		found <- findMasterMap(args, func(path string) (string, error) { return readInRoot(daemon, path) })
	}()
	select {
	case err = <-found:
	case <-ctx.Done():
		err = fmt.Errorf("read its configuration: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("automount %d: %w", daemon.PID(), err)
	}
	return nil
}

// handlesHangup reports whether a process ignores, catches or blocks SIGHUP
// (proc_pid_status(5)). One blocking thread is enough: in a thread that is in sigwait(3)
// the kernel shows the awaited signals as not blocked.
func handlesHangup(p *nsenter.Process) (bool, error) {
	tasks, err := p.ReadDirNames("task")
	if err != nil {
		return false, err
	}
	for _, task := range tasks {
		status, err := p.ReadFile("task/"+task+"/status", 1<<16)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			if name != "SigBlk" && name != "SigIgn" && name != "SigCgt" {
				continue
			}
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return false, fmt.Errorf("process %d: %s in /proc/%d/task/%s/status: %w", p.PID(), name, p.PID(), task, err)
			}
			if set&(1<<(unix.SIGHUP-1)) != 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

// findMasterMap looks for the master map of a daemon with these arguments; read reads its
// files.
func findMasterMap(args []string, read func(path string) (string, error)) error {
	if services, _ := read("/etc/nsswitch.conf"); otherSources(services) {
		return nil
	}
	names := []string{"/etc/auto.master", "/etc/auto_master"}
	if name := masterName(args, read); name != "" {
		if strings.Contains(name, ":") {
			return nil // "ldap:...", "sss:..."
		}
		if !strings.HasPrefix(name, "/") {
			name = "/etc/" + name
		}
		names = []string{name}
	}
	for _, name := range names {
		// Any other error means that it exists, and the daemon may be able to read it.
		if _, err := read(name); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%q: %w", names[0], ErrNoMasterMap)
}

// otherSources reports whether the name service switch configures other sources than
// files for automount maps (nsswitch.conf(5)).
func otherSources(text string) bool {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		database, sources, _ := strings.Cut(line, ":")
		if strings.TrimSpace(database) != "automount" {
			continue
		}
		for source := range strings.FieldsSeq(sources) {
			if source != "files" && !strings.HasPrefix(source, "[") {
				return true
			}
		}
	}
	return false
}

// masterName is the master map that a daemon has as its last argument or in its
// configuration; "" for none.
func masterName(args []string, read func(path string) (string, error)) string {
	last := args[len(args)-1]
	if len(args) > 1 && strings.HasPrefix(last, "/") && !strings.HasPrefix(args[len(args)-2], "-p") {
		return last // the value of another option is no path
	}
	for _, config := range []struct{ path, key string }{
		{"/etc/autofs.conf", "master_map_name"},
		{"/etc/default/autofs", "MASTER_MAP_NAME"},
		{"/etc/sysconfig/autofs", "MASTER_MAP_NAME"},
	} {
		text, _ := read(config.path)
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(line, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			if strings.TrimSpace(name) == config.key && value != "" {
				return value
			}
		}
	}
	return ""
}

// Bounds for configuration files: the size of each in bytes, and the time to read all.
const (
	maxConfig  = 1 << 20
	configTime = 2 * time.Second
)

// readInRoot reads a regular file in the root of a process.
func readInRoot(p *nsenter.Process, path string) (string, error) {
	look, err := p.OpenInRoot(path, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer look.Close()
	f, err := p.Reopen(look, unix.O_RDONLY, func(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFREG })
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig))
	return string(text), err
}
