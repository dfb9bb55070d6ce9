package journal

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container/containertest"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/criuimage"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
)

func TestHandover(t *testing.T) {
	s := NewStore(t.TempDir())
	criu, otherCRIU := testproc.Open(t, testenv.Start(t, nil)), testproc.Open(t, testenv.Start(t, nil))
	if r, err := s.LoadHandover(criu); r != nil || err != nil {
		t.Errorf("before: %v, %v", r, err)
	}
	want := &Handover{
		Stage: stage.Preserve, Init: "5-6", Devices: []OldDevice{{Path: containertest.HostileName[:3], Device: 54, StrictExpire: true, Systemd: true}},
		Helper: fdstore.Ref{PID: 7, StartTime: 8, Files: 2}, Roots: []HeldRoot{{Namespace: 1, Mount: 2, Index: 1}},
		Preserved: []string{"/a"}, NotPreserved: map[string]string{"/b": "taken"},
	}
	for range 2 {
		if err := s.SaveHandover(criu, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.LoadHandover(criu); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if r, err := s.LoadHandover(otherCRIU); r != nil || err != nil {
		t.Errorf("of another restore: %v, %v", r, err)
	}
	path := filepath.Join(s.dir, "restores", criu.Identity()+".json")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for text, say := range map[string]string{`{"version":99}`: "version 99", `{}`: "version 0", `{"version":`: "JSON", "": "JSON"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := s.LoadHandover(criu); err == nil || r != nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %+v, %v", text, r, err)
		}
	}
}

func TestSweep(t *testing.T) {
	s := NewStore(t.TempDir())
	s.Sweep() // nothing there
	alive, dead := testenv.Start(t, nil), testenv.Start(t, nil)
	living, gone := testproc.Open(t, alive), testproc.Open(t, dead)
	keep, drop := &Handover{}, &Handover{}
	if err := errors.Join(s.SaveHandover(living, keep), s.SaveHandover(gone, drop)); err != nil {
		t.Fatal(err)
	}
	dead.End()
	dir := filepath.Join(s.dir, "restores")
	reused := strings.Replace(living.Identity(), "-", "-9", 1) + reportSuffix // its number, at another time
	for _, name := range []string{reused, "README", "x-y.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Leftovers of killed runs: a partly written file, a lock. A report may have any name.
	for name, age := range map[string]time.Duration{"old.json.1.2.tmp": time.Hour, "new.json.1.2.tmp": 0} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, time.Time{}, time.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"locks", "reports"} {
		path := filepath.Join(s.dir, other)
		if err := errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, gone.Identity()), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s.Sweep()
	for name, want := range map[string]bool{
		living.Identity() + ".json": true, gone.Identity() + ".json": false, reused: false, "README": true, "x-y.json": true,
		"old.json.1.2.tmp": false, "new.json.1.2.tmp": true,
		"../locks/" + gone.Identity(): false, "../reports/" + gone.Identity(): true,
	} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", name, err, want)
		}
	}
}

func TestOldDevices(t *testing.T) {
	const options = "fd=9,pgrp=80,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=156810"
	systemd := criuimage.Superblock{FD: 9, ProcessGroup: 1, ReadFD: 8, Mode: autofs.Direct}
	change := func(f func(*criuimage.Superblock)) criuimage.Superblock { s := systemd; f(&s); return s }
	set := &criuimage.Set{
		Mounts: []criuimage.Mount{
			{MountPoint: "/systemd", Device: 1, NamespaceID: 3, Options: options + ",ignore"},
			{MountPoint: "/automount", Device: 2, Options: options + ",strictexpire"},
			{MountPoint: "/catatonic", Device: 3},
			{MountPoint: "/indirect", Device: 4},
			{MountPoint: "/unknown", Device: 5, Options: "ignore,strictexpire"}, // not the kernel's options
			{MountPoint: "/group", Device: 6},
			{MountPoint: "/systemd", Device: 7, NamespaceID: 4},
		},
		Superblocks: map[uint64]criuimage.Superblock{
			1: systemd, 2: change(func(s *criuimage.Superblock) { s.ReadFD = -1 }), 3: change(func(s *criuimage.Superblock) { s.FD = -1 }),
			4: change(func(s *criuimage.Superblock) { s.Mode = autofs.Indirect }), 6: change(func(s *criuimage.Superblock) { s.ProcessGroup = 20 }), 7: systemd,
		},
	}
	h := &Handover{Devices: OldDevices(set)}
	if got := h.SystemdDevices(); !reflect.DeepEqual(got, []uint64{1}) {
		t.Errorf("devices of systemd: %v", got)
	}
	for path, want := range map[string]OldDevice{
		"/systemd": {Path: "/systemd", Device: 1, Ignore: true, Systemd: true}, "/automount": {Path: "/automount", Device: 2, StrictExpire: true},
		"/unknown": {Path: "/unknown", Device: 5}, "/absent": {},
	} {
		if got := h.OldDevice(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if len(h.Devices) != 6 {
		t.Errorf("%+v", h.Devices)
	}
	h.Preserved, h.NotPreserved = []string{"/systemd", "/automount"}, map[string]string{"/group": "taken"}
	outside := container.Master{Identity: master.Identity{Kind: master.Outside, PID: 1}}
	list := []container.Mount{
		{Namespace: 5, Path: "/systemd", Device: 1},
		{Namespace: 5, Path: "/automount", Device: 9},
		{Namespace: 5, Path: "/group", Device: 9},
		{Namespace: 6, Path: "/systemd", Device: 1},   // a service shows the same superblock
		{Namespace: 6, Path: "/automount", Device: 7}, // another mount, of a container in the container
		{Namespace: 5, Path: "/unknown", Device: 8, Master: outside},
	}
	h.Describe(list, 5)
	if !list[0].Preserved || list[1].Preserved || list[1].DeviceBefore != 2 || list[2].NotPreserved != "taken" || !list[3].Preserved {
		t.Errorf("%+v", list)
	}
	if list[4].DeviceBefore != 0 || list[5].DeviceBefore != 0 {
		t.Errorf("described by the path alone: %+v", list[4:])
	}
}
