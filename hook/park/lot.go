// Package park makes the processes that use an autofs mount wait, without an
// error, while the mount is repaired.
//
// A [Lot] is an autofs mount of our own. A process that walks onto it waits there for our
// answer, except processes of its process group, which walk over it. There are two
// answers. [Continue] makes the process continue into the mount that is on the lot by then:
// an automount daemon's new trigger. [Lot.Retry] makes the kernel repeat the lookup of
// the whole path (ESTALE, retry_estale() in include/linux/namei.h), for a lot that is no
// longer at the path. The process sees a delay, not an error.
package park

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Source is the name of a lot in mount tables.
const Source = "autofs-restore-hook"

// Lot is a parking mount: an autofs mount whose requests we answer.
type Lot struct {
	// Tree is the mount before it is attached, nil for a lot from [OpenLot].
	Tree *os.File
	// Root is the mount's root, for ioctls.
	Root *os.File
	// Pipe is the reading end for the kernel's requests. If no process has it open,
	// processes in the lot wait forever: close it after [Lot.Close] only.
	Pipe *os.File
}

// New makes a lot that is not attached anywhere, in the mount namespace of the
// calling thread: from Linux 6.19 on (922a6f34c175) a mount that propagates
// nothing serves only the namespace in which its superblock was made.
//
// Processes of the given process group (a number in the caller's pid namespace, 0 for the
// caller's own group) do not wait. The type is offset, so that an automount daemon does
// not take the lot for a trigger of its own.
func New(group int) (*Lot, error) {
	reader, writer, err := sys.Pipe()
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	l := &Lot{Pipe: reader}
	if l.Tree, err = autofs.Create(autofs.CreateOptions{
		PipeWriter: writer, ProcessGroup: group, Type: autofs.Offset, UID: -1, GID: -1, Source: Source,
	}); err == nil {
		l.Root, err = autofs.Reopen(l.Tree)
	}
	if err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("parking mount: %w", err)
	}
	return l, nil
}

// OpenLot continues with the files of a lot that another process created.
func OpenLot(root, pipe *os.File) *Lot { return &Lot{Root: root, Pipe: pipe} }

// Device is the lot's st_dev.
func (l *Lot) Device() (uint64, error) { return autofs.Device(l.Root) }

// AttachTo attaches the lot to the root of another mount, which is open, in the
// mount namespace of the calling thread. The lot keeps a copy of its tree for the
// next call; attached is the tree that is mounted now.
func (l *Lot) AttachTo(root *os.File) (attached *os.File, err error) {
	if err := sys.MoveMount(l.Tree, root, ""); err != nil {
		return nil, fmt.Errorf("park the processes that use %q: %w", root.Name(), err)
	}
	attached, l.Tree = l.Tree, nil
	// Not before it is attached: before Linux 6.15 only a mount in the caller's namespace
	// can be copied.
	if l.Tree, err = sys.CloneTree(attached, 0); err != nil {
		return attached, fmt.Errorf("park the processes that use %q: %w", root.Name(), err)
	}
	return attached, nil
}

const (
	// lastRequest is how long to wait for the request of a process that is already on
	// the lot.
	lastRequest = 2 * time.Millisecond
	// answerTime bounds the answers: a process in a mount namespace where nothing is
	// mounted on the lot sends another request at once.
	answerTime = 200 * time.Millisecond
)

// Retry answers all requests: their processes repeat their path lookups. Only the lot's
// process group may do this, so the lot must be from New(0).
func (l *Lot) Retry(control *autofs.Control) error {
	return answer([]*Lot{l}, func(token uint32) error { return control.Fail(l.Root, token, unix.ESTALE) })
}

// pipesOf are the pipes of lots, for poll(2).
func pipesOf(lots []*Lot) []unix.PollFd {
	fds := make([]unix.PollFd, len(lots))
	for i, l := range lots {
		fds[i] = unix.PollFd{Fd: int32(l.Pipe.Fd()), Events: unix.POLLIN}
	}
	return fds
}

// HasWaiters reports whether a process waits in one of the lots.
func HasWaiters(lots []*Lot) bool {
	n, _ := sys.Poll(pipesOf(lots), 0)
	return n > 0
}

// Continue answers all requests in the lots: their processes continue into the mounts on the
// lots.
func Continue(lots []*Lot) error { return answer(lots, nil) }

// answer answers requests until none has come for lastRequest, or answerTime is over. A
// nil reply is READY. The errors are joined.
func answer(lots []*Lot, reply func(token uint32) error) error {
	fds := pipesOf(lots)
	var errs []error
	end := time.Now().Add(answerTime)
	for {
		// Not a read deadline: one that expires before the read starts, on a busy
		// machine, would hide a request that is there.
		n, err := sys.Poll(fds, lastRequest)
		if err != nil || n == 0 || time.Now().After(end) {
			return errors.Join(append(errs, err)...)
		}
		for i, l := range lots {
			if fds[i].Revents == 0 {
				continue
			}
			token, err := l.request()
			if err == nil && reply != nil {
				err = reply(token)
			} else if err == nil {
				err = autofs.Ready(l.Root, token)
			}
			if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: the process was killed
				fds[i].Fd = -1 // poll(2) ignores it
				if !errors.Is(err, io.EOF) {
					errs = append(errs, err)
				}
			}
		}
	}
}

// request reads a pending request and returns its token. io.EOF means that the lot is
// catatonic.
func (l *Lot) request() (uint32, error) {
	buf := make([]byte, autofs.PacketSize)
	n, err := sys.Read(l.Pipe, buf)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	p, err := autofs.ParsePacket(buf[:n])
	return p.Token, err
}

// Close makes the lot catatonic, so that no process is left waiting in it, and closes its
// files. It stays mounted.
func (l *Lot) Close() error {
	err := autofs.Release(l.Root)
	l.closeFiles()
	return err
}

func (l *Lot) closeFiles() {
	for _, f := range []*os.File{l.Tree, l.Root, l.Pipe} {
		if f != nil {
			f.Close()
		}
	}
}

// Detach unmounts a lot whose root is open, in a process's mount namespace.
func Detach(ctx context.Context, p *nsenter.Process, root *os.File) error {
	return p.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error { return sys.Detach(root) })
}

// Remove unmounts the lot that an interrupted run left at a path. The helper of that run
// has released the processes in it.
func Remove(ctx context.Context, p *nsenter.Process, path string, device uint64) error {
	control, err := autofs.OpenControl()
	if err != nil {
		return err
	}
	defer control.Close()
	return p.InMountNamespace(context.WithoutCancel(ctx), func(*nsenter.Thread) error {
		root, err := control.OpenMount(path, device)
		if err != nil {
			return err
		}
		defer root.Close()
		return sys.Detach(root)
	})
}

// CloseFiles closes the files of a lot that another process keeps open. A nil lot has none.
func (l *Lot) CloseFiles() {
	if l != nil {
		l.closeFiles()
	}
}
