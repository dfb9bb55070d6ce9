//go:build linux && (amd64 || arm64)

package autofs

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The numbers were printed by a C program from <linux/auto_fs.h> and
// <linux/auto_dev-ioctl.h>; they are the same on amd64 and arm64.
func TestIoctlNumbers(t *testing.T) {
	for name, n := range map[string][2]uint{
		"AUTOFS_IOC_READY":               {iocReady, 0x9360},
		"AUTOFS_IOC_FAIL":                {iocFail, 0x9361},
		"AUTOFS_IOC_CATATONIC":           {iocCatatonic, 0x9362},
		"AUTOFS_IOC_SETTIMEOUT":          {iocSetTimeout, 0xc0089364},
		"AUTOFS_DEV_IOCTL_OPENMOUNT":     {iocDevOpenMount, 0xc0189374},
		"sizeof autofs_dev_ioctl":        {requestSize, 24},
		"sizeof autofs_v5_packet":        {PacketSize, 304},
		"offsetof autofs_v5_packet.name": {packetName, 44},
	} {
		if n[0] != n[1] {
			t.Errorf("%s is %#x, not %#x", name, n[0], n[1])
		}
	}
}

func TestRequest(t *testing.T) {
	r, err := newRequest(-1, "/mnt/auto")
	if err != nil {
		t.Fatal(err)
	}
	if len(r) != 24+10 || binary.NativeEndian.Uint32(r[offsetSize:]) != 34 || r.ioctlFD() != -1 || string(r[24:]) != "/mnt/auto\x00" {
		t.Errorf("request %q", r)
	}
	for path, want := range map[string]error{
		"auto":                          unix.EINVAL,
		"/a\x00b":                       unix.EINVAL,
		"/" + strings.Repeat("a", 4095): unix.ENAMETOOLONG,
		"/" + strings.Repeat("a", 4094): nil,
	} {
		if _, err := newRequest(-1, path); !errors.Is(err, want) {
			t.Errorf("path of %d bytes: %v instead of %v", len(path), err, want)
		}
	}
}

func TestDeviceNumbers(t *testing.T) {
	for _, d := range []struct {
		major, minor uint32
		encoded      uint32
		image        uint32
	}{
		{0, 54, 54, 54},
		{0, 255, 255, 255},
		{0, 256, 0x100000, 256},
		{0, 1<<20 - 1, 0xfff000ff, 1<<20 - 1},
		{8, 1, 0x801, 8<<20 | 1},
		{259, 4660, 0x12<<20 | 259<<8 | 0x34, 259<<20 | 4660},
	} {
		dev := unix.Mkdev(d.major, d.minor)
		if got := encodeDevice(dev); got != d.encoded {
			t.Errorf("encodeDevice(%d:%d) = %#x, not %#x", d.major, d.minor, got, d.encoded)
		}
		if got := decodeDevice(d.encoded); got != dev {
			t.Errorf("decodeDevice(%#x) = %#x, not %#x", d.encoded, got, dev)
		}
		if major, minor := DeviceFromImage(d.image); major != d.major || minor != d.minor {
			t.Errorf("DeviceFromImage(%#x) = %d:%d", d.image, major, minor)
		}
	}
}

func packet(kind, length uint32, name string) []byte {
	b := make([]byte, PacketSize)
	for offset, v := range map[int]uint32{0: 5, 4: kind, 8: 77, 12: 0x100001, 24: 1000, 28: 100, 32: 42, 36: 41, 40: length} {
		binary.NativeEndian.PutUint32(b[offset:], v)
	}
	binary.NativeEndian.PutUint64(b[16:], 1<<40)
	copy(b[44:], name)
	return b
}

func TestParsePacket(t *testing.T) {
	want := Packet{
		Type: MissingIndirect, Token: 77, Device: unix.Mkdev(0, 257), Inode: 1 << 40, Name: "home",
		UID: 1000, GID: 100, PID: 42, TGID: 41,
	}
	good := packet(3, 4, "home")
	for _, b := range [][]byte{good, good[:300]} {
		if got, err := ParsePacket(b); err != nil || got != want {
			t.Errorf("packet of %d bytes: %+v, %v", len(b), got, err)
		}
	}
	version := packet(3, 4, "home")
	version[0] = 4
	for name, b := range map[string][]byte{
		"empty":      nil,
		"short":      good[:299],
		"long":       append(good, 0),
		"protocol 4": version,
		"type":       packet(2, 4, "home"),
		"name":       packet(3, 256, "home"),
		"huge name":  packet(3, 1<<31, "home"),
	} {
		if _, err := ParsePacket(b); !errors.Is(err, ErrPacket) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	f.Add(packet(3, 4, "home"))
	f.Add(packet(6, 255, strings.Repeat("a", 255))[:300])
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePacket(b); err == nil && len(p.Name) > 255 || err != nil && !errors.Is(err, ErrPacket) {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestLostFiles: a nil or closed file is an error, never another descriptor.
func TestLostFiles(t *testing.T) {
	closed, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, f := range map[string]*os.File{"nil": nil, "closed": closed} {
		_, device := Device(f)
		_, reopen := Reopen(f)
		_, create := Create(CreateOptions{PipeWriter: f})
		for call, err := range map[string]error{
			"Device": device, "Reopen": reopen, "Create": create,
			"Ready": Ready(f, 1), "Catatonic": Catatonic(f), "SetTimeout": SetTimeout(f, 1), "Release": Release(f),
		} {
			if err == nil {
				t.Errorf("%s of a %s file: no error", call, name)
			}
		}
	}
}
