package hook

import "testing"

// TestSameCovers: what covers a mount must still be there by its mount id,
// unless it is an autofs mount, which may have been recreated at its path.
func TestSameCovers(t *testing.T) {
	tmpfs := Cover{ID: 7, Type: "tmpfs", Path: "/a"}
	nested := Cover{ID: 8, Type: "autofs", Path: "/a/b"}
	list := []Cover{tmpfs, nested}
	for name, c := range map[string]struct {
		now  []Cover
		same bool
	}{
		"the same":             {[]Cover{nested, tmpfs}, true},
		"autofs recreated":     {[]Cover{tmpfs, {ID: 9, Type: "autofs", Path: "/a/b"}}, true},
		"autofs elsewhere":     {[]Cover{tmpfs, {ID: 9, Type: "autofs", Path: "/a/c"}}, false},
		"autofs for the tmpfs": {[]Cover{{ID: 9, Type: "autofs", Path: "/a"}, nested}, false},
		"another tmpfs":        {[]Cover{{ID: 9, Type: "tmpfs", Path: "/a"}, nested}, false},
		"tmpfs for the autofs": {[]Cover{tmpfs, {ID: 9, Type: "tmpfs", Path: "/a/b"}}, false},
		"one gone":             {[]Cover{tmpfs}, false},
		"one more":             {[]Cover{tmpfs, nested, {ID: 9, Type: "autofs", Path: "/a/b"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if sameCovers(list, c.now) != c.same {
				t.Errorf("sameCovers(%+v, %+v) is not %t", list, c.now, c.same)
			}
		})
	}
}
