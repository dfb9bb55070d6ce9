package systemd

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// socketAddress builds the address of a Unix socket for a raw connect(2).
func socketAddress(path string) (address *unix.RawSockaddrUnix, length uintptr, err error) {
	address = &unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	if len(path) >= len(address.Path) {
		return nil, 0, fmt.Errorf("socket address %q: longer than %d bytes", path, len(address.Path)-1)
	}
	for i := range len(path) {
		address.Path[i] = int8(path[i])
	}
	const family = 2
	return address, family + uintptr(len(path)) + 1, nil
}

// commonCapabilities are the effective capabilities that both the process and this one
// have.
func commonCapabilities(p *nsenter.Process) (uint64, error) {
	theirs, err := p.Capabilities("CapEff")
	if err != nil {
		return 0, err
	}
	self, err := nsenter.Open(unix.Getpid())
	if err != nil {
		return 0, err
	}
	defer self.Close()
	ours, err := self.Capabilities("CapEff")
	return theirs & ours, err
}
