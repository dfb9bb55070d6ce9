package criuimage

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// FuzzDecode feeds all decoders. What they accept must keep the promises of
// the types; what they refuse must be a FormatError.
func FuzzDecode(f *testing.F) {
	f.Add(image(mountsHead, root(), entry()))
	f.Add(image([]uint32{magicMounts}, entry(field{7, "/a"}), entry(field{2, 5}, field{4, 301})))
	f.Add(image(mountsHead, entry(field{4, 301})))
	f.Add(image(mountsHead, encode(field{1, 5}, field{2, 1}, field{4, 2})))
	f.Add(image(autofsHead, superblock()))
	f.Add(image(autofsHead, superblock(field{1, -1}, field{7, 1000}, field{9, nil})))
	f.Add(append(image(mountsHead), 0xff, 0xff, 0xff, 0x7f))
	f.Add(image(filesHead, fileEntry(watch("/sys/fs/cgroup/a/cgroup.events", 301), watch("", 0))))
	f.Add(image(filesHead, timerEntry(1, 1, 1)))
	f.Add(image(clocksHead, clocks(1, 999_999_999)))
	f.Add(image(mountsHead, groupMount()))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		img := file{name: "fuzz", data: data}
		mounts, err := img.decodeMounts(3)
		refused(t, err)
		for _, m := range mounts {
			if !clean(m.MountPoint) || m.Device == 0 || m.NamespaceID != 3 || m.ParentID == m.MountID {
				t.Errorf("accepted %+v", m)
			}
		}
		watches, err := img.decodeWatches()
		refused(t, err)
		for _, w := range watches {
			if len(w.Path) > maxPath || strings.IndexByte(w.Path, 0) >= 0 {
				t.Errorf("accepted %+v", w)
			}
		}
		timer, err := img.decodeTimers()
		refused(t, err)
		if timer < 0 {
			t.Errorf("accepted %v", timer)
		}
		fractions := map[int]time.Duration{}
		refused(t, img.decodeClocks(fractions))
		for _, f := range fractions {
			if f < 0 || f >= time.Second {
				t.Errorf("accepted %v", f)
			}
		}
		groups := make(map[uint32]GroupMount)
		refused(t, img.decodeGroupMounts(groups))
		s, err := img.decodeSuperblock(54)
		refused(t, err)
		if err == nil && (s.FD < -1 || s.ProcessGroup < 0 || s.Timeout < 0 || !s.Mode.Valid() || s.UID < -1 || s.ReadFD < -1) {
			t.Errorf("accepted %+v", s)
		}
		for _, m := range mounts {
			if o, err := autofs.ParseOptions(m.Options); err == nil && o.Timeout < 0 {
				t.Errorf("options %q", m.Options)
			}
		}
	})
}

func refused(t *testing.T, err error) {
	var format *FormatError
	if err != nil && (!errors.As(err, &format) || format.Unwrap() == nil) {
		t.Errorf("error %v is no FormatError", err)
	}
}
