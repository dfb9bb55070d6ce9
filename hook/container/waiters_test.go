package container

import (
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
)

// TestWaitersInside: waiters on mounts with a master outside do not count.
func TestWaitersInside(t *testing.T) {
	at := func(path string, kind master.Kind) Mount {
		return Mount{Path: path, Master: Master{Identity: master.Identity{Kind: kind}}}
	}
	list := []Mount{
		at("/a", master.Systemd), at("/a/net", master.Outside), at("/a/net/own", master.Automount),
		at("/both", master.Outside), at("/both", master.Systemd),
	}
	for path, want := range map[string]bool{
		"/a/x": true, "/a/net": false, "/a/net/x": false, "/a/net/own/x": true, "/a/network": true, "/both/x": true, "/elsewhere": true, "": true,
	} {
		if got := WaitersInside([]Waiter{{PID: 1, Path: path}}, list); (len(got) == 1) != want {
			t.Errorf("%q: %v, want it counted: %v", path, got, want)
		}
	}
	for _, list := range [][]Mount{{at("/a", master.Outside), at("/b", master.Outside)}, {at("/a", master.Outside)}} {
		if got := WaitersInside([]Waiter{{PID: 1}}, list); len(got) != 0 {
			t.Errorf("only mounts outside: %v", got)
		}
	}
	if got := WaitersInside([]Waiter{{PID: 1}}, nil); len(got) != 1 {
		t.Errorf("no mounts: %v", got)
	}
}
