//go:build linux

package autofs

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ParameterError says which step of making an autofs superblock failed.
type ParameterError struct {
	Op        string // the system call: fsopen, fsconfig, fsmount
	Parameter string // the mount option, or the command
	Value     string // as it was given
	Message   string // what the kernel had to say; empty before 6.7
	Err       error
}

func (e *ParameterError) Error() string {
	s := "create autofs: " + e.Op
	if e.Parameter != "" {
		s += " " + e.Parameter
	}
	if e.Value != "" {
		s += "=" + e.Value
	}
	if e.Message != "" {
		s += fmt.Sprintf(" (kernel: %s)", e.Message)
	}
	return s + ": " + e.Err.Error()
}

func (e *ParameterError) Unwrap() error { return e.Err }

// fsContext is a filesystem in the making, from fsopen(2).
type fsContext struct{ fd int }

func openContext(fstype string) (*fsContext, error) {
	var c fsContext
	err := retry(func() (err error) {
		c.fd, err = unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
		return err
	})
	if err != nil {
		return nil, &ParameterError{Op: "fsopen", Parameter: fstype, Err: err}
	}
	return &c, nil
}

func (c *fsContext) close() { unix.Close(c.fd) }

func (c *fsContext) setString(key, value string) error {
	err := retry(func() error { return unix.FsconfigSetString(c.fd, key, value) })
	return c.error("fsconfig", key, value, err)
}

func (c *fsContext) setFlag(key string) error {
	err := retry(func() error { return unix.FsconfigSetFlag(c.fd, key) })
	return c.error("fsconfig", key, "", err)
}

func (c *fsContext) create() error {
	err := retry(func() error { return unix.FsconfigCreate(c.fd) })
	return c.error("fsconfig", "FSCONFIG_CMD_CREATE", "", err)
}

func (c *fsContext) mount(name string) (*os.File, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, c.error("fsmount", "", "", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (c *fsContext) error(op, parameter, value string, err error) error {
	if err == nil {
		return nil
	}
	return &ParameterError{Op: op, Parameter: parameter, Value: value, Message: c.messages(), Err: err}
}

// messages collects what the kernel wrote into the context: one message for
// each read, "e text\n" for an error, ENODATA at the end (Documentation/
// filesystems/mount_api.rst). The kernel keeps at most eight.
func (c *fsContext) messages() string {
	var all []string
	buf := make([]byte, 4096)
	for range 8 {
		n, err := unix.Read(c.fd, buf)
		if err != nil || n <= 0 {
			break
		}
		text := strings.TrimSpace(string(buf[:n]))
		if len(text) > 2 && text[1] == ' ' {
			text = text[2:]
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}
