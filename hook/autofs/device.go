//go:build linux

package autofs

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/sys"
)

// There are three encodings of a device number:
//
//	st_dev            unix.Mkdev(major, minor), 64 bits; used everywhere in this program
//	new_encode_dev()  32 bits, in OPENMOUNT and in packets (include/linux/kdev_t.h)
//	kernel's dev_t    major<<20 | minor, 32 bits, in CRIU's images (criu/util.h kdev_*)
//
// For major 0 and minors below 256 all three are equal. That hides mistakes until a host
// has had 256 anonymous superblocks.
const imageMinorBits = 20

// encodeDevice converts st_dev to the kernel's new_encode_dev form, with 12 bits for the
// major number and 20 for the minor. Higher bits, which st_dev never has, are dropped.
func encodeDevice(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | (major&0xfff)<<8 | (minor&0xfff00)<<12
}

// decodeDevice converts the kernel's new_encode_dev form to st_dev.
func decodeDevice(dev uint32) uint64 {
	return unix.Mkdev(dev>>8&0xfff, dev&0xff|dev>>12&0xfff00)
}

// DeviceFromImage splits a device number of CRIU's images (mnt_entry.root_dev,
// and the decimal number in the name of an autofs image).
func DeviceFromImage(dev uint32) (major, minor uint32) {
	return dev >> imageMinorBits, dev & (1<<imageMinorBits - 1)
}

// Device returns the st_dev of an open mount. fstat(2) never triggers a mount and never
// waits; f may be an O_PATH descriptor or a detached mount.
func Device(f *os.File) (uint64, error) {
	st, err := sys.Stat(f)
	return uint64(st.Dev), err //nolint:unconvert // 32 bits on some architectures
}
