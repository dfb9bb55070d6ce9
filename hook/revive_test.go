package hook

import (
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/respawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

func TestAutomountFlags(t *testing.T) {
	for line, want := range map[string][2]bool{
		"automount":                        {false, false},
		"automount -v --timeout 60 -p f":   {false, false},
		"/usr/sbin/automount --debug":      {false, false},
		"automount /etc/auto.f":            {false, false},
		"automount -f":                     {true, false},
		"automount -vf":                    {true, false},
		"automount --foreground -v":        {true, false},
		"automount -t 5 --fore":            {true, false},
		"automount -S":                     {true, false},
		"automount --systemd-service":      {true, false},
		"automount -F":                     {false, true},
		"automount --force -v":             {false, true},
		"automount --dont-check-daemon":    {false, false},
		"automount -Df=1":                  {true, false}, // in doubt
		"automount --global-options ro -O": {false, false},
	} {
		foreground, forced := automountFlags(strings.Fields(line))
		if foreground != want[0] || forced != want[1] {
			t.Errorf("%s: foreground %v, forced %v, want %v", line, foreground, forced, want)
		}
	}
	if foreground, forced := automountFlags([]string{""}); foreground || forced {
		t.Error("no arguments")
	}
}

// TestRecallDaemons: a daemon that a killed run has ended is known again, by
// the mounts that it served and nobody serves now.
func TestRecallDaemons(t *testing.T) {
	init := open(t, testenv.Start(t, nil))
	s := store{t.TempDir()}
	mount := func(change func(*Mount)) Mount { return aloneMount(change) }
	nobody := func(m *Mount) { m.Master = Master{Identity: master.Identity{Kind: master.None}} }
	list := []Mount{
		mount(nobody),
		mount(nil),
		mount(func(m *Mount) { m.Master.PID++ }),
		mount(func(m *Mount) { nobody(m); m.Path = "/other" }),
		mount(func(m *Mount) { nobody(m); m.Device++ }),
		mount(func(m *Mount) { nobody(m); m.Options.FD, m.Options.Type = -1, autofs.Direct }),
	}
	if err := s.recallDaemons(init, list); err != nil || list[0].Master.Alone != nil {
		t.Errorf("without a record: %+v, %v", list[0].Master, err)
	}
	served := mount(nil)
	d := &daemon{
		Version: recordVersion, PID: 101, ContainerPID: 7, Foreground: true, Twin: &respawn.Twin{Environment: []byte("A=\xff\x00")},
		Mounts: []settled{served.settled()}, note: daemonNote.of(s, init, 101),
	}
	if err := d.note.save(d); err != nil {
		t.Fatal(err)
	}
	if err := s.recallDaemons(init, list); err != nil {
		t.Fatal(err)
	}
	for i, killed := range []bool{true, false, false, false, false, true} {
		alone := list[i].Master.Alone
		if (alone != nil && alone.Killed) != killed || killed && (list[i].Master.PID != 101 || !alone.Foreground) {
			t.Errorf("mount %d: %+v, %+v", i, list[i].Master, alone)
		}
		if list[i].Settled != (i == 2) {
			t.Errorf("mount %d: settled %v", i, list[i].Settled)
		}
	}
	again := &daemon{note: d.note}
	if err := again.load(); err != nil || string(again.Twin.Environment) != "A=\xff\x00" {
		t.Errorf("%+v, %v", again, err)
	}
	if err := d.note.write([]byte(`{"version":1}`)); err != nil {
		t.Fatal(err)
	}
	if err := s.recallDaemons(init, list); err == nil {
		t.Error("a record without a daemon was accepted")
	}
	if err := d.drop(t.Context()); err != nil || again.load() == nil {
		t.Errorf("forgotten: %v", err)
	}
}
