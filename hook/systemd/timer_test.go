package systemd

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// newTimer makes a timer that expires after a time from now; if that is negative it has
// expired.
func newTimer(t *testing.T, clock int, after time.Duration, flags int) (fd int) {
	t.Helper()
	fd, err := unix.TimerfdCreate(clock, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	value := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(after))}
	if flags&unix.TFD_TIMER_ABSTIME != 0 {
		var now unix.Timespec
		if err := unix.ClockGettime(int32(clock), &now); err != nil {
			t.Fatal(err)
		}
		value.Value = unix.NsecToTimespec(now.Nano() + int64(after))
	}
	if after != 0 {
		if err := unix.TimerfdSettime(fd, flags, &value, nil); err != nil {
			t.Fatal(err)
		}
	}
	if after < 0 { // it ticks with the next interrupt
		if n, err := sys.Retry(func() (int, error) { return unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000) }); n != 1 {
			t.Fatalf("the timer has not expired: %v", err)
		}
	}
	return fd
}

// TestDelayTimers has the timers of a systemd that CRIU has restored.
func TestDelayTimers(t *testing.T) {
	self, err := nsenter.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	const absolute = unix.TFD_TIMER_ABSTIME
	const unknown, fraction = time.Second, 300 * time.Millisecond
	fractions := map[int]time.Duration{unix.CLOCK_MONOTONIC: fraction}
	for name, test := range map[string]struct {
		clock   int
		after   time.Duration
		flags   int
		expired bool
		want    time.Duration // what is left afterwards
		call    bool
	}{
		"disarmed":                  {unix.CLOCK_MONOTONIC, 0, absolute, true, 0, false},
		"in a minute":               {unix.CLOCK_MONOTONIC, time.Minute, absolute, true, time.Minute + fraction, false},
		"at a date":                 {unix.CLOCK_REALTIME, time.Hour, absolute, false, time.Hour + unknown, false},
		"expired":                   {unix.CLOCK_MONOTONIC, -time.Millisecond, absolute, true, 0, true},
		"expired, since the boot":   {unix.CLOCK_BOOTTIME, -time.Millisecond, absolute, true, unknown, false},
		"expired, not set before":   {unix.CLOCK_MONOTONIC, -time.Millisecond, absolute, false, 0, false},
		"relative":                  {unix.CLOCK_MONOTONIC, time.Minute, 0, true, time.Minute, false},
		"a watch for clock changes": {unix.CLOCK_REALTIME, time.Hour, absolute | unix.TFD_TIMER_CANCEL_ON_SET, true, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			fd := newTimer(t, test.clock, test.after, test.flags)
			if call, err := DelayTimers(self, test.expired, fractions); err != nil || call != test.call {
				t.Errorf("call %v, %v; want %v", call, err, test.call)
			}
			var now unix.ItimerSpec
			if err := unix.TimerfdGettime(fd, &now); err != nil {
				t.Fatal(err)
			}
			left := time.Duration(now.Value.Nano())
			if took := time.Since(begin); left > test.want || left < test.want-took {
				t.Errorf("%v is left after %v, want %v", left, took, test.want)
			}
			if _, err := unix.Read(fd, make([]byte, 8)); (err == nil) != (test.after < 0 && test.want == 0) {
				t.Errorf("read: %v", err)
			}
		})
	}
}
