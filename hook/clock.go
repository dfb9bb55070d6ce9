package hook

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is the moment of the boot on the clock that the kernel dates inodes
// with (CLOCK_REALTIME), for start times that count from the boot.
func bootTime() time.Time {
	var real, boot unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME, &real) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return time.Time{}
	}
	return time.Unix(real.Sec, real.Nsec).Add(-time.Duration(boot.Nano()))
}
