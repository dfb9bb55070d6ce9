package journal

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
)

// FuzzHandover feeds handovers: they are root's, but may be cut or of another
// release.
func FuzzHandover(f *testing.F) {
	f.Add([]byte(`{"version":1,"moment":"preserve","init":"1-2","devices":[{"path":"/a","device":54,"fd":3,"systemd":true}]}`))
	f.Add([]byte(`{"version":1,"roots":[{"namespace":1,"mount":2,"index":-1}],"holder":{"pid":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Handover
		if err := handovers.parse(data, &r); err != nil {
			return
		}
		list := []container.Mount{{Path: "/a", Device: 54}, {Path: "", Device: 0}}
		r.Describe(list, 0)
		for _, number := range r.Wanted() {
			if number == 0 && len(r.Devices) == 0 {
				t.Error("a number without a mount")
			}
		}
	})
}
