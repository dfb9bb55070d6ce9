package master

import (
	"fmt"
	"strconv"

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

// effectiveCapabilities are those that a process has and we have too, as the
// bits of capget(2).
func effectiveCapabilities(p *nsenter.Process) (uint64, error) {
	theirs, err := capabilitiesOf(p)
	if err != nil {
		return 0, err
	}
	self, err := nsenter.Open(unix.Getpid())
	if err != nil {
		return 0, err
	}
	defer self.Close()
	ours, err := capabilitiesOf(self)
	return theirs & ours, err
}

func capabilitiesOf(p *nsenter.Process) (uint64, error) {
	value, err := p.Status("CapEff")
	if err != nil {
		return 0, err
	}
	bits, err := strconv.ParseUint(value, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("process %d: /proc/%d/status: CapEff: %w", p.PID(), p.PID(), err)
	}
	return bits, nil
}
