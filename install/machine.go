package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// searchPath is where services find their programs.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// find lists the files of the tree that are called as a program of this name,
// each once.
func (t *tree) find(name string) []string {
	var list []string
	seen := map[uint64]bool{}
	for _, dir := range searchPath {
		if st, ok := t.executable(dir + "/" + name); ok && !seen[st.Ino] {
			seen[st.Ino] = true
			list = append(list, dir+"/"+name)
		}
	}
	return list
}

// executable looks for a regular file of the tree that can be executed.
func (t *tree) executable(name string) (st unix.Stat_t, ok bool) {
	f, err := t.open(name, unix.O_PATH)
	if err != nil {
		return st, false
	}
	defer f.Close()
	err = unix.Fstat(int(f.Fd()), &st)
	return st, err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0
}

const (
	commandTime = 10 * time.Second
	maxOutput   = maxText
)

// run runs a program of the tree inside the tree, and returns what it wrote.
func (t *tree) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	return t.runWith(ctx, nil, program, args...)
}

// runWith is run with more in the environment.
func (t *tree) runWith(ctx context.Context, env []string, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	out, errs, err := t.runTo(ctx, env, program, args)
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("not finished within %s", commandTime)
	case len(out) > maxOutput:
		err = fmt.Errorf("wrote more than %d bytes", maxOutput)
	}
	if err == nil {
		return out, nil
	}
	text := ""
	if line, _, _ := strings.Cut(strings.TrimSpace(string(errs)), "\n"); line != "" {
		text = fmt.Sprintf(": %q", line)
	}
	return nil, fmt.Errorf("%s: %w%s", strings.Join(append([]string{t.show(program)}, args...), " "), err, text)
}

// runTo runs a program until ctx ends, with files in memory as its output: unlike
// pipes these end with it, whatever it has started.
func (t *tree) runTo(ctx context.Context, env []string, program string, args []string) (out, errs []byte, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	files := []*os.File{null}
	for range 2 {
		f, err := outputFile()
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		files = append(files, f)
	}
	attributes := &syscall.SysProcAttr{}
	if !t.isOwnRoot() {
		// The child has the descriptor until it runs the program.
		attributes.Chroot = fmt.Sprintf("/proc/self/fd/%d", t.dir.Fd())
	}
	p, err := os.StartProcess(program, append([]string{program}, args...), &os.ProcAttr{
		Dir: "/", Env: append(env, "PATH="+strings.Join(searchPath, ":"), "LC_ALL=C"), Files: files, Sys: attributes,
	})
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = errors.New(state.String())
	}
	written := func(f *os.File) []byte {
		size, readErr := f.Seek(0, io.SeekCurrent) // the program's position too
		data := make([]byte, max(size, 0))
		if readErr == nil {
			_, readErr = f.ReadAt(data, 0)
		}
		err = errors.Join(err, readErr)
		return data
	}
	return written(files[1]), written(files[2]), err
}

// outputFile makes a file in memory that is full a little above maxOutput bytes
// (memfd_create(2), File sealing): a write that would go beyond that fails.
func outputFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "output")
	err = f.Truncate(maxOutput + 1<<16)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isOwnRoot reports whether the tree is what this process sees as "/".
func (t *tree) isOwnRoot() bool {
	var own, st unix.Stat_t
	return unix.Stat("/", &own) == nil && unix.Fstat(int(t.dir.Fd()), &st) == nil && own.Dev == st.Dev && own.Ino == st.Ino
}

// ErrNoCRIU means that there is no CRIU.
var ErrNoCRIU = errors.New("no criu in " + strings.Join(searchPath, ", "))

// OldCRIUError means that CRIU would fail with an action script in its
// configuration.
type OldCRIUError struct {
	Path    string
	Version Version
}

func (e *OldCRIUError) Error() string {
	return fmt.Sprintf("%s is version %s: before %s an action-script line in %s aborts every checkpoint and restore of runc; nothing was written. "+
		"Install CRIU %[3]s or later, or use an OCI hook: install --engine podman, crio or containerd (README, Install)",
		e.Path, e.Version, ScriptVersion, CRIUFile)
}

// checkCRIU finds every CRIU that an engine may call, and returns an error if
// there is none, or one that is too old. All of them read the same file.
func (t *tree) checkCRIU(ctx context.Context) error {
	programs := t.find("criu")
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
	out, err := t.run(ctx, program, "--version")
	if err != nil {
		return Version{}, fmt.Errorf("version of CRIU: %w", err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	text, ok := strings.CutPrefix(line, "Version:")
	v, parsed := ParseVersion(text)
	if !ok || !parsed {
		return Version{}, fmt.Errorf("%s --version wrote %q, want \"Version: \" and a number; nothing was written", t.show(program), bound(line))
	}
	return v, nil
}

// bound shortens a text for a message.
func bound(text string) string {
	if len(text) > 200 {
		return text[:200] + "..."
	}
	return text
}
