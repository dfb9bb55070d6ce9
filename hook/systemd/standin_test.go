package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
	"golang.org/x/sys/unix"
)

// container starts a process that is the first of a pid namespace.
func container(t *testing.T) *nsenter.Process {
	t.Helper()
	testenv.RequireRoot(t)
	return testproc.Open(t, testenv.Start(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}))
}

// checkHarmless: it has nothing that the container's own processes have not.
func checkHarmless(t *testing.T, p, pid1 *nsenter.Process, capabilities uint64) {
	t.Helper()
	testenv.Eventually(t, "a process without files", func() bool {
		names, err := p.ReadDirNames("fd")
		return err == nil && len(names) == 0
	})
	for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		theirs, err := p.Namespace(kind)
		want, err2 := pid1.Namespace(kind)
		if errors.Join(err, err2) != nil || theirs != want {
			t.Errorf("%s namespace: %v, want %v, %v", kind, theirs, want, errors.Join(err, err2))
		}
	}
	status, err := p.ReadFile("status", 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("CapEff:\t%016x\n", capabilities), fmt.Sprintf("CapPrm:\t%016x\n", capabilities), "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
}

// TestStartPeer: who accepts the connection sees a process of the container.
func TestStartPeer(t *testing.T) {
	pid1 := container(t)
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	target, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	peer, err := dialAs(target, fd, pid1)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := listener.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var cred *unix.Ucred
	if ctl := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); errors.Join(ctl, err) != nil {
		t.Fatal(errors.Join(ctl, err))
	}
	p, err := nsenter.Open(int(cred.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	capabilities, err := commonCapabilities(pid1)
	if err != nil {
		t.Fatal(err)
	}
	if inner, err := master.ContainerPID(p); err != nil || inner < 2 || cred.Uid != 0 {
		t.Errorf("the peer is process %d (%d inside) of user %d, %v", cred.Pid, inner, cred.Uid, err)
	}
	checkHarmless(t, p, pid1, capabilities)
	// We listen, not the container's first process: the other side refuses us.
	if err := checkPeer(fd, pid1); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("an impostor: %v", err)
	}
	peer.end()
	if err := p.Alive(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its end: %v", err)
	}
}

// TestStartPeerErrors name the step that failed, and leave no process.
func TestStartPeerErrors(t *testing.T) {
	pid1 := container(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := dialAs(null, fd, pid1); !errors.Is(err, unix.ECONNREFUSED) || !strings.Contains(err.Error(), "connect") {
		t.Errorf("no socket: %v", err)
	}
	if members, err := pid1.Members(); err != nil || len(members) != 1 {
		t.Errorf("left in the container: %v, %v", members, err)
	}
	if _, err := connect(t.Context(), pid1); err == nil {
		t.Error("a container without systemd was connected to")
	}
}
