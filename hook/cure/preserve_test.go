package cure

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
)

// TestSameCovers: covers must have the same mount ids, except autofs mounts, which may
// have been recreated at their paths.
func TestSameCovers(t *testing.T) {
	tmpfs := container.Cover{ID: 7, Type: "tmpfs", Path: "/a"}
	nested := container.Cover{ID: 8, Type: "autofs", Path: "/a/b"}
	list := []container.Cover{tmpfs, nested}
	for name, c := range map[string]struct {
		now  []container.Cover
		same bool
	}{
		"the same":             {[]container.Cover{nested, tmpfs}, true},
		"autofs recreated":     {[]container.Cover{tmpfs, {ID: 9, Type: "autofs", Path: "/a/b"}}, true},
		"autofs elsewhere":     {[]container.Cover{tmpfs, {ID: 9, Type: "autofs", Path: "/a/c"}}, false},
		"autofs for the tmpfs": {[]container.Cover{{ID: 9, Type: "autofs", Path: "/a"}, nested}, false},
		"another tmpfs":        {[]container.Cover{{ID: 9, Type: "tmpfs", Path: "/a"}, nested}, false},
		"tmpfs for the autofs": {[]container.Cover{tmpfs, {ID: 9, Type: "tmpfs", Path: "/a/b"}}, false},
		"one gone":             {[]container.Cover{tmpfs}, false},
		"one more":             {[]container.Cover{tmpfs, nested, {ID: 9, Type: "autofs", Path: "/a/b"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if sameCovers(list, c.now) != c.same {
				t.Errorf("sameCovers(%+v, %+v) is not %t", list, c.now, c.same)
			}
		})
	}
}
