package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// privateSocket is systemd's own D-Bus socket. It needs no D-Bus daemon in the
// container and answers root only (src/core/dbus.c, bus_init_private).
const privateSocket = "/run/systemd/private"

// maxAnswers bounds what one connection may send us, in bytes: a description
// of 500 units takes about 2 MB.
const maxAnswers = 64 << 20

// Manager is a connection to a container's systemd.
type Manager struct {
	conn *sd.Conn
}

// Connect reaches the systemd that is the given process, PID 1 of a container.
// The socket is opened inside that process's root without following links, and
// the peer must be that very process: a socket of the host's systemd, mounted
// into the container, is refused. Every later call ends with ctx.
func Connect(ctx context.Context, pid1 *nsenter.Process) (*Manager, error) {
	socket, err := pid1.OpenInRoot(privateSocket, unix.O_PATH)
	if err != nil {
		return nil, fmt.Errorf("the container's systemd: %w", err)
	}
	defer socket.Close()
	dial := func() (*dbus.Conn, error) { return dialPrivate(ctx, socket, pid1) }
	conn, err := sd.NewConnection(dial)
	if err != nil {
		return nil, fmt.Errorf("the container's systemd: %w", err)
	}
	return &Manager{conn: conn}, nil
}

// Close ends the connection.
func (m *Manager) Close() { m.conn.Close() }

func dialPrivate(ctx context.Context, socket *os.File, pid1 *nsenter.Process) (*dbus.Conn, error) {
	var dialer net.Dialer
	// connect(2) to the magic link reaches the socket that was opened, whatever
	// its path names by now.
	raw, err := dialer.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(socket.Fd())))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", privateSocket, err)
	}
	if err := checkPeer(raw.(*net.UnixConn), pid1); err != nil {
		raw.Close()
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(deadline); err != nil {
			raw.Close()
			return nil, fmt.Errorf("connection to %s: %w", privateSocket, err)
		}
	}
	conn, err := dbus.NewConn(&boundedConn{Conn: raw, left: maxAnswers}, dbus.WithContext(ctx))
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("D-Bus over %s: %w", privateSocket, err)
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal("0")}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("D-Bus over %s: %w", privateSocket, noAnswer(ctx, err))
	}
	return conn, nil
}

// checkPeer compares the process that listens on the socket, as the kernel
// recorded it, with the one that we were told is the container's systemd.
func checkPeer(conn *net.UnixConn, pid1 *nsenter.Process) error {
	sys, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("connection to %s: %w", privateSocket, err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := sys.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("connection to %s: %w", privateSocket, err)
	}
	if credErr != nil {
		return fmt.Errorf("who listens on %s: %w", privateSocket, os.NewSyscallError("getsockopt", credErr))
	}
	if int(cred.Pid) != pid1.PID() || cred.Uid != 0 {
		return fmt.Errorf("process %d (uid %d) listens on %s, not the container's PID 1 (process %d)",
			cred.Pid, cred.Uid, privateSocket, pid1.PID())
	}
	return nil
}

// boundedConn fails when the other side has sent too much.
type boundedConn struct {
	net.Conn
	left int64
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("systemd sent more than %d bytes: %w", int64(maxAnswers), io.ErrShortBuffer)
	}
	n, err := c.Conn.Read(b)
	c.left -= int64(n)
	return n, err
}

// noAnswer says what a time-out on the private socket means.
func noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("systemd does not answer (stopped, or busy for too long?): %w", err)
	}
	return err
}
