package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCRIU is the error of a root directory without CRIU.
var ErrNoCRIU = errors.New("no criu in " + strings.Join(searchPath, ", "))

// OldCRIUError reports a CRIU that fails with an action script in its configuration.
type OldCRIUError struct {
	Path    string
	Version Version
}

func (e *OldCRIUError) Error() string {
	return fmt.Sprintf("%s is version %s: before %s an action-script line in %s aborts every checkpoint and restore of runc; nothing was written. "+
		"Install CRIU %[3]s or later, or use an OCI hook: install --engine podman, crio or containerd (README, Install)",
		e.Path, e.Version, ScriptVersion, CRIUFile)
}

// checkCRIU returns an error if the tree has no CRIU, or one that is too old. All of
// them read the same configuration file.
func (t *tree) checkCRIU(ctx context.Context) error {
	programs := t.lookPath("criu")
	if len(programs) == 0 {
		return ErrNoCRIU
	}
	for _, program := range programs {
		v, err := t.criuVersion(ctx, program)
		if err != nil {
			return err
		}
		if v.Less(ScriptVersion) {
			return &OldCRIUError{Path: t.show(program), Version: v}
		}
	}
	return nil
}

func (t *tree) criuVersion(ctx context.Context, program string) (Version, error) {
	out, err := t.run(ctx, nil, program, "--version")
	if err != nil {
		return Version{}, fmt.Errorf("version of CRIU: %w", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	text, ok := strings.CutPrefix(line, "Version:")
	v, parsed := parseVersion(text)
	if !ok || !parsed {
		return Version{}, fmt.Errorf("%s --version wrote %.200q, want \"Version: \" and a number; nothing was written", t.show(program), line)
	}
	return v, nil
}

// checkCallable runs what CRIU will call as CRIU does, at a stage without work. A
// program that cannot be executed makes CRIU abort the checkpoints and restores of
// every engine, and the mode bits do not tell: the file system may be mounted with
// noexec, or a security module may refuse.
func (p *plan) checkCallable(ctx context.Context) error {
	for _, name := range []string{p.program, p.callee} {
		_, err := p.tree.run(ctx, []string{"CRTOOLS_SCRIPT_ACTION=post-dump"}, name)
		switch {
		case errors.Is(err, unix.ENOEXEC) && !p.tree.isOwnRoot():
			p.note("%s: cannot be executed here (another architecture, or damaged), so whether CRIU can call it was not checked", p.tree.show(name))
		case err != nil:
			return fmt.Errorf("CRIU would abort every checkpoint and restore, as it could not call %w; "+
				"check whether that file system is mounted with noexec, or choose another --prefix; the files are as before", err)
		}
	}
	return nil
}

// criuTimeout bounds the wait of a removal for running CRIUs: most restores take less.
const criuTimeout = 2 * time.Second

// skipWhileCRIURuns returns a function that prevents the removal of a file while a CRIU
// runs that may have read the action script's name: without the script it aborts its
// dump or restore, and it cannot restore a systemd container without the control groups
// that the program creates.
func (p *plan) skipWhileCRIURuns(name string) func() bool {
	return func() bool {
		if !p.tree.isOwnRoot() {
			return false // no process of that root runs here
		}
		for end := time.Now().Add(criuTimeout); criuRuns(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				p.note("%s is kept for a running CRIU; uninstall again when it has ended", p.tree.show(name))
				return true
			}
		}
		return false
	}
}

// criuRuns reports whether a CRIU runs in the pid namespace of this process. One in
// another pid namespace belongs to a container: it does not read the host's
// configuration, and its name may be forged.
func criuRuns() bool {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	entries, _ := os.ReadDir("/proc")
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		dir := "/proc/" + e.Name()
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil || !strings.HasPrefix(string(comm), "criu") {
			return false
		}
		namespace, err := os.Readlink(dir + "/ns/pid")
		return err == nil && namespace == own
	})
}
