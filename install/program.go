package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
)

// searchPath is the PATH of services.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// lookPath lists the executables of this name in the search path, each file once.
func (t *tree) lookPath(name string) []string {
	var list []string
	var seen []fs.FileInfo
	for _, dir := range searchPath {
		info := t.executable(dir + "/" + name)
		if info == nil || slices.ContainsFunc(seen, func(other fs.FileInfo) bool { return os.SameFile(info, other) }) {
			continue
		}
		seen = append(seen, info)
		list = append(list, dir+"/"+name)
	}
	return list
}

// executable describes an executable regular file of the tree; nil if there is none.
func (t *tree) executable(name string) fs.FileInfo {
	f, err := pathrs.OpenatInRoot(t.dir, name)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return nil
	}
	return info
}

const (
	commandTimeout = 10 * time.Second
	maxOutput      = maxText // of each stream, in bytes
)

// boundedBuffer refuses a write beyond maxOutput, which ends the pipe that os/exec
// copies from.
type boundedBuffer struct {
	data []byte
	full bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.full = len(b.data)+len(p) > maxOutput; b.full {
		return 0, errors.New("output limit reached")
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

// run runs a program of the tree, with the tree as its root directory, and returns its
// standard output. env is added to its environment.
func (t *tree) run(ctx context.Context, env []string, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var out, errs boundedBuffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", append(env, "PATH="+strings.Join(searchPath, ":"), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second // for children that inherit the pipes
	if !t.isOwnRoot() {
		// The child has the descriptor until it executes the program.
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: fmt.Sprintf("/proc/self/fd/%d", t.dir.Fd())}
	}
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("not finished within %s: %w", commandTimeout, ctx.Err())
	case out.full || errs.full:
		err = fmt.Errorf("wrote more than %d bytes", maxOutput)
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return out.data, nil
	}
	message := ""
	if line, _, _ := strings.Cut(strings.TrimSpace(string(errs.data)), "\n"); line != "" {
		message = fmt.Sprintf(": %q", line)
	}
	return nil, fmt.Errorf("%s: %w%s", strings.Join(append([]string{t.show(program)}, args...), " "), err, message)
}

// programVersion runs a program with --version.
func (t *tree) programVersion(ctx context.Context, program string) (Version, error) {
	out, err := t.run(ctx, nil, program, "--version")
	if err != nil {
		return Version{}, err
	}
	v, ok := parseVersion(string(out))
	if !ok {
		return v, errors.New("no version number in the output of --version")
	}
	return v, nil
}
