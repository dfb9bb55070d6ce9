package gate

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// service is an autofs mount whose master is this process.
type service struct {
	tree *os.File // detached
	root *os.File // for ioctls
	pipe *os.File // what the kernel asks
}

// serve makes an autofs mount, not attached anywhere.
func serve() (*service, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
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
//
// It polls: a file's read deadline that has passed before the read begins, as on
// a busy machine, would hide a request that is there.
func (s *service) request(limit time.Duration) (p autofs.Packet, ok bool, err error) {
	fd := int(s.pipe.Fd())
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return p, false, os.NewSyscallError("poll", err)
		}
		break
	}
	buf := make([]byte, autofs.PacketSize)
	n, err := unix.Read(fd, buf)
	switch {
	case err != nil:
		return p, false, os.NewSyscallError("read", err)
	case n == 0:
		return p, false, io.EOF
	}
	p, err = autofs.ParsePacket(buf[:n])
	return p, err == nil, err
}
