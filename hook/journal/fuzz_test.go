package journal

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
)

// FuzzHandover: a handover may be truncated or of another release.
func FuzzHandover(f *testing.F) {
	f.Add([]byte(`{"version":1,"moment":"preserve","init":"1-2","devices":[{"path":"/a","device":54,"fd":3,"systemd":true}]}`))
	f.Add([]byte(`{"version":1,"roots":[{"namespace":1,"mount":2,"index":-1}],"holder":{"pid":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var h Handover
		if err := handovers.parse(data, &h); err != nil {
			return
		}
		list := []container.Mount{{Path: "/a", Device: 54}, {Path: "", Device: 0}}
		h.Describe(list, 0)
		for _, number := range h.SystemdDevices() {
			if number == 0 && len(h.Devices) == 0 {
				t.Error("a number without a mount")
			}
		}
	})
}
