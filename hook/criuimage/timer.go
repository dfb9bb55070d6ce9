package criuimage

import (
	"fmt"
	"math"
	"time"

	"github.com/VictoriaMetrics/easyproto"
	"golang.org/x/sys/unix"
)

const (
	typeTimer = 17 // enum fd_types of images/fdinfo.proto
	// absoluteTimer is TFD_TIMER_ABSTIME in settime_flags, alone.
	absoluteTimer = 1
)

// decodeTimers returns the least time that was left on an absolute timer of a files image
// (timerfd_entry of images/timerfd.proto), 0 if none was set.
func (f *file) decodeTimers() (least time.Duration, err error) {
	err = f.entries(typeTimer, 12, func(offset int, timer []byte) error {
		var flags, seconds, nanoseconds uint64
		err := f.fields(offset, timer, func(v *easyproto.FieldContext) error {
			switch v.FieldNum {
			case 6:
				flags, _ = v.Uint64()
			case 7:
				seconds, _ = v.Uint64()
			case 8:
				nanoseconds, _ = v.Uint64()
			}
			return nil
		})
		const most = math.MaxInt64/uint64(time.Second) - 1
		left := time.Duration(min(seconds, most))*time.Second + time.Duration(min(nanoseconds, uint64(time.Second)))
		if flags == absoluteTimer && left > 0 && (least == 0 || left < least) {
			least = left
		}
		return err
	})
	return least, err
}

// maxClocksFile bounds an image of the clocks, which has two.
const maxClocksFile = 4096

// decodeClocks sets the fractions of a second of the clocks in an image of a time namespace
// (timens_entry of images/timens.proto). Where there are several it sets the greatest.
func (f *file) decodeClocks(fractions map[int]time.Duration) error {
	return f.records(magicClocks, func(offset int, record []byte) error {
		return f.fields(offset, record, func(v *easyproto.FieldContext) error {
			clock := unix.CLOCK_MONOTONIC
			switch v.FieldNum {
			case 1:
			case 2:
				clock = unix.CLOCK_BOOTTIME
			default:
				return nil
			}
			message, _ := v.MessageData()
			return f.fields(offset, message, func(v *easyproto.FieldContext) error {
				if v.FieldNum != 2 {
					return nil
				}
				n, isNumber := v.Uint64()
				if !isNumber || n >= uint64(time.Second) {
					return f.fail(offset, "tv_nsec", fmt.Errorf("%w: %d", ErrRange, n))
				}
				fractions[clock] = max(fractions[clock], time.Duration(n))
				return nil
			})
		})
	})
}
