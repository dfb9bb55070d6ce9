package criuimage

import (
	"math"
	"time"

	"github.com/VictoriaMetrics/easyproto"
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
