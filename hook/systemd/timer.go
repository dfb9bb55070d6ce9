package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// DelayTimers corrects the timers of a restored systemd, whose processes must be stopped.
// It reports whether systemd must be called after the resume. mayHaveExpired is whether a
// timer of the checkpoint may have expired by now; fractions are those of criuimage.Watched.
//
// CRIU restores an absolute timer with the time that was left, to which it adds the whole
// seconds of the clock only (timerfd_arm in criu/pie/restorer.c): it expires up to a second
// early. systemd then finds nothing due, and sets the timer again only when another timer
// changes (flush_timer and event_arm_timer in libsystemd/sd-event): meanwhile it ignores
// mount events, if it was checkpointed while their rate limit was in effect
// (src/core/mount.c), expires no automount and starts no timer unit.
//
// So each timer gets another fraction of a second: that of its clock at the checkpoint.
// CRIU saves the clock after the timers, and gives the container that time again before it
// restores the timers (prepare_timens in criu/timens.c), so what it loses is no more. If the
// fraction is unknown, as that of the real-time clock, it is a second. A timer of the
// monotonic clock that has expired, as that of the rate limit, is left: a new client of
// the bus, which has a time limit, makes systemd set this timer to the right time at once.
// If no timer of the checkpoint can have expired, one that has was not set there: CRIU sets
// these, too, and systemd ignores their expiry.
func DelayTimers(p *nsenter.Process, mayHaveExpired bool, fractions map[int]time.Duration) (call bool, err error) {
	files, err := p.Descriptors()
	if err != nil {
		return true, err
	}
	var errs []error
	for _, number := range files {
		if target, err := p.Readlink("fd/" + strconv.Itoa(number)); err != nil || target != "anon_inode:[timerfd]" {
			continue
		}
		timer, err := readTimer(p, number)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		expired := timer.ticks > 0
		switch {
		case timer.flags != unix.TFD_TIMER_ABSTIME, !expired && timer.left == 0, expired && !mayHaveExpired:
			continue // a watch on clock changes, another program's, or not set
		case expired && timer.clock == unix.CLOCK_MONOTONIC:
			call = true
			continue
		}
		errs = append(errs, timer.delay(p, number, fractions))
	}
	err = errors.Join(errs...)
	return call || err != nil, err
}

// timer is what fdinfo says about a timerfd (proc_pid_fdinfo(5)).
type timer struct {
	clock, flags, ticks int
	left, interval      time.Duration
}

func readTimer(p *nsenter.Process, number int) (t timer, err error) {
	text, err := p.ReadFile("fdinfo/"+strconv.Itoa(number), 1<<16)
	if err != nil {
		return t, err
	}
	var left, interval unix.Timespec
	_, rest, _ := strings.Cut(string(text), "\nclockid:")
	_, err = fmt.Sscanf("clockid:"+rest, "clockid: %d\nticks: %d\nsettime flags: %o\nit_value: (%d, %d)\nit_interval: (%d, %d)",
		&t.clock, &t.ticks, &t.flags, &left.Sec, &left.Nsec, &interval.Sec, &interval.Nsec)
	if err != nil {
		return t, fmt.Errorf("process %d: /proc/%d/fdinfo/%d: timer: %w", p.PID(), p.PID(), number, err)
	}
	t.left, t.interval = time.Duration(left.Nano()), time.Duration(interval.Nano())
	return t, nil
}

// earliness is by how much CRIU may have restored the timer too early.
func (t timer) earliness(fractions map[int]time.Duration) time.Duration {
	clock := t.clock
	if clock == unix.CLOCK_BOOTTIME_ALARM {
		clock = unix.CLOCK_BOOTTIME
	}
	if fraction, known := fractions[clock]; known {
		return fraction
	}
	return time.Second
}

// delay sets the timer, which the process shares with this one for a moment.
func (t timer) delay(p *nsenter.Process, number int, fractions map[int]time.Duration) error {
	fd, err := sys.PidfdGetfd(p.Pidfd(), number)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var now unix.Timespec
	if err := unix.ClockGettime(int32(t.clock), &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	value := unix.ItimerSpec{
		Interval: unix.NsecToTimespec(int64(t.interval)),
		Value:    unix.NsecToTimespec(now.Nano() + int64(t.left+t.earliness(fractions))),
	}
	return os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME, &value, nil))
}
