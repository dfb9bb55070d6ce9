package gate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// requestTime bounds the wait for a request that a process of ours has just
// caused.
const requestTime = time.Second

// service is an autofs mount whose master is this process.
type service struct {
	tree *os.File // detached
	root *os.File // for ioctls
	pipe *os.File // what the kernel asks
}

// serve makes an autofs mount, not attached anywhere.
func serve() (*service, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	s := &service{pipe: os.NewFile(uintptr(pipe[0]), "autofs pipe")}
	writer := os.NewFile(uintptr(pipe[1]), "autofs pipe")
	defer writer.Close()
	var err error
	if s.tree, err = autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, Type: autofs.Direct, UID: -1, GID: -1, Source: Source,
	}); err == nil {
		s.root, err = autofs.Reopen(s.tree)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *service) close() {
	for _, f := range []*os.File{s.tree, s.root, s.pipe} {
		if f != nil {
			f.Close()
		}
	}
}

// request reads the next request, waiting for it up to limit; ok is false if
// none came.
func (s *service) request(limit time.Duration) (p autofs.Packet, ok bool, err error) {
	if err := s.pipe.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return p, false, err
	}
	buf := make([]byte, autofs.PacketSize)
	n, err := s.pipe.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	p, err = autofs.ParsePacket(buf[:n])
	return p, err == nil, err
}

// currentToken learns the value of the counter that the kernel numbers
// requests with, one for all autofs mounts of the machine (fs/autofs/waitq.c,
// autofs_next_wait_queue): a child of ours touches a scratch mount, which only
// it and we see.
func currentToken(ctx context.Context) (uint32, error) {
	s, err := serve()
	if err != nil {
		return 0, err
	}
	defer s.close()
	touched := make(chan error, 1)
	go func() {
		touched <- nsenter.InPrivateNamespace(ctx, func(*nsenter.Thread) error {
			if err := unix.MoveMount(int(s.tree.Fd()), "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return os.NewSyscallError("move_mount", err)
			}
			// Only a process of another process group than ours is held up. It
			// gets no further than its chdir, which fails.
			_, _ = syscall.ForkExec("/", []string{"/"}, &syscall.ProcAttr{
				Dir: "/proc/touched", Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
			})
			return nil
		})
	}()
	p, ok, err := s.request(requestTime)
	err = errors.Join(err, autofs.Catatonic(s.root)) // lets the child go
	err = errors.Join(err, <-touched)
	if err == nil && !ok {
		err = errors.New("the kernel did not ask for it")
	}
	if err != nil {
		return 0, fmt.Errorf("scratch automount: %w", err)
	}
	return p.Token, nil
}
