package cure

import (
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

// TestPreserveWithoutSurvey: if the mounts cannot be listed, no helper keeps device numbers,
// and other restores do not take them for ones that become free.
func TestPreserveWithoutSurvey(t *testing.T) {
	table, err := mounts.Read(strings.NewReader("2 1 0:50 / /a rw - autofs systemd-1 rw,unknown\n"))
	if err != nil {
		t.Fatal(err)
	}
	helper, lower := testproc.Open(t, testenv.Start(t, nil)), testproc.Open(t, testenv.Start(t, nil))
	h := &journal.Handover{
		Helper: fdstore.Ref{PID: helper.PID(), StartTime: helper.StartTime()},
		Lower:  fdstore.Ref{PID: lower.PID(), StartTime: lower.StartTime()},
	}
	s := &Session{container: &container.Container{Spaces: []*container.Space{{Process: helper, Table: table}}}}
	if err := s.Preserve(t.Context(), nil, h); err == nil || !strings.Contains(err.Error(), "options") {
		t.Errorf("%v", err)
	}
	if !helper.Ended() || !lower.Ended() || h.Helper.PID != 0 || h.Lower.PID != 0 {
		t.Errorf("ended: %t, %t; %+v, %+v", helper.Ended(), lower.Ended(), h.Helper, h.Lower)
	}
}

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
