package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// privateSocket is systemd's own D-Bus socket. It needs no D-Bus daemon in the
// container and answers root only (src/core/dbus.c, bus_init_private).
const privateSocket = "/run/systemd/private"

// Manager is a connection to a container's systemd.
type Manager struct {
	conn *dbus.Conn
	jobs *jobResults
	peer *standIn
	pid1 *nsenter.Process
}

// greetingTime bounds how long systemd may take to accept a connection. It takes about
// 1 ms, or forever if it is stopped.
const greetingTime = 3 * time.Second

// Connect reaches the systemd that is the given process, PID 1 of a container.
// The socket is opened inside that process's root without following links, and
// the peer must be that very process: a socket of the host's systemd, mounted
// into the container, is refused. Every later call ends with ctx.
func Connect(ctx context.Context, systemd *owner.Member) (*Manager, error) {
	if err := systemd.Check(); err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	m, err := connect(ctx, systemd.Process)
	if err != nil {
		return nil, fmt.Errorf("the container's systemd: %w", err)
	}
	return m, nil
}

// IsReexecuting reports whether an error of [Connect] is as that of a systemd that
// re-executes itself: it has no socket, does not listen, or ends connections that it has
// not accepted yet.
func IsReexecuting(err error) bool {
	for _, kind := range []error{fs.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// SocketID identifies the file of a systemd's private socket, "" if it has none. A systemd
// that re-executes itself replaces the file when it listens again. It is only a hint:
// the container can replace the file.
func SocketID(pid1 *nsenter.Process) string {
	f, err := pid1.OpenInRoot(privateSocket, unix.O_PATH)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := sys.Stat(f)
	if err != nil {
		return ""
	}
	return fmt.Sprint(st.Dev, st.Ino, st.Ctim.Nano())
}

func connect(ctx context.Context, pid1 *nsenter.Process) (*Manager, error) {
	target, err := pid1.OpenInRoot(privateSocket, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer target.Close()
	// Non-blocking: a full backlog is an error.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	m := &Manager{pid1: pid1, jobs: newJobResults()}
	if m.peer, err = dialAs(target, fd, pid1); err != nil {
		return nil, err
	}
	if m.conn, err = m.authenticate(ctx, fd); err != nil {
		m.peer.end()
		return nil, err
	}
	return m, nil
}

// Close ends the connection.
func (m *Manager) Close() {
	_ = m.conn.Close()
	m.peer.end()
}

// authenticate makes a D-Bus connection of a connected socket, which stays open.
func (m *Manager) authenticate(ctx context.Context, fd int) (*dbus.Conn, error) {
	if err := checkPeer(fd, m.pid1); err != nil {
		return nil, err
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(copied), privateSocket)
	defer f.Close()
	raw, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("connection to %s: %w", privateSocket, err)
	}
	if err := raw.SetDeadline(time.Now().Add(greetingTime)); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connection to %s: %w", privateSocket, err)
	}
	conn, err := dbus.NewConn(newAnswers(raw), dbus.WithContext(ctx), dbus.WithSignalHandler(m.jobs))
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("D-Bus over %s: %w", privateSocket, err)
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal("0")}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("D-Bus over %s: %w", privateSocket, noAnswer(ctx, err))
	}
	if err := awaitRead(ctx, fd); err != nil {
		conn.Close()
		return nil, fmt.Errorf("D-Bus over %s: %w", privateSocket, err)
	}
	deadline, _ := ctx.Deadline() // none: the zero time, which is no deadline either
	if err := raw.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connection to %s: %w", privateSocket, err)
	}
	return conn, nil
}

// awaitRead waits until the other side has read everything that was sent. systemd leaves
// a message that it reads together with the end of the authentication in its buffer until
// more data arrives (libsystemd/sd-bus, bus_prepare_callback ignores the read buffer; seen
// with 257).
func awaitRead(ctx context.Context, fd int) error {
	for end := time.Now().Add(greetingTime); ; time.Sleep(50 * time.Microsecond) {
		left, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		switch {
		case err != nil:
			return os.NewSyscallError("ioctl SIOCOUTQ", err)
		case left == 0:
			return nil
		case ctx.Err() != nil:
			return noAnswer(ctx, context.Cause(ctx))
		case time.Now().After(end):
			return noAnswer(ctx, os.ErrDeadlineExceeded)
		}
	}
}

// checkPeer compares the process that listens on the socket, according to the kernel,
// with the container's systemd.
func checkPeer(fd int, pid1 *nsenter.Process) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("peer of %s: %w", privateSocket, os.NewSyscallError("getsockopt", err))
	}
	if int(cred.Pid) != pid1.PID() || cred.Uid != 0 {
		return fmt.Errorf("process %d (uid %d) listens on %s, not the container's PID 1 (process %d)",
			cred.Pid, cred.Uid, privateSocket, pid1.PID())
	}
	return nil
}

// noAnswer adds the likely cause to a time-out on the private socket.
func noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("systemd does not answer (stopped, or busy for too long?): %w", err)
	}
	return err
}
