package container

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/owner"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestListAutofsLimits: the number of autofs mounts, and of mounts on them, is limited.
func TestListAutofsLimits(t *testing.T) {
	line := func(id, parent int, path, kind string) string {
		return fmt.Sprintf("%d %d 0:50 / %s rw - %s x rw,fd=1,pgrp=1,timeout=0,minproto=5,maxproto=5,direct\n", id, parent, path, kind)
	}
	many := func(count int) string {
		var text strings.Builder
		for i := range count {
			text.WriteString(line(i+2, 1, fmt.Sprintf("/m%d", i), "autofs"))
		}
		return text.String()
	}
	chain := func(count int) string {
		var text strings.Builder
		for i := range count {
			text.WriteString(line(i+2, i+1, "/"+strings.Repeat("a/", i)+"a", "autofs"))
		}
		return text.String()
	}
	self, err := nsenter.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for name, test := range map[string]struct {
		tables []string
		found  int
		reason string
	}{
		"all that are allowed": {[]string{many(maxAutofs - 1), many(1)}, maxAutofs, ""},
		"one more":             {[]string{many(maxAutofs - 1), many(2)}, 0, "more than 16384 autofs mounts"},
		"on each other":        {[]string{chain(700)}, 700, ""},
		"too many on each":     {[]string{chain(800)}, 0, "more than 262144 mounts"},
	} {
		c := &Container{}
		for _, text := range test.tables {
			table, err := mounts.Read(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			c.Spaces = append(c.Spaces, &Space{Process: self, Table: table})
		}
		list, err := c.ListAutofs()
		if len(list) != test.found || (err == nil) != (test.reason == "") || err != nil && !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s: %d mounts, %v", name, len(list), err)
		}
	}
}

// TestFindMastersElsewhere: a master that does not lead the process group of its mount is
// found among the container's processes and among all others.
func TestFindMastersElsewhere(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(read.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	init := testproc.Open(t, testenv.Start(t, nil))
	self, other := os.Getpid(), testproc.Open(t, testenv.Start(t, nil)).PID()
	for name, members := range map[string][]int{"inside": {other, self}, "outside": {other}} {
		c := &Container{
			Init: init, Owner: owner.Of(init), Members: members, Spaces: []*Space{{Process: init}},
			Masters: map[int]*owner.Member{}, pipes: map[int]map[uint64]int{}, own: map[RootKey]bool{},
		}
		var list []Mount
		for i, pipe := range []uint64{st.Ino, 1 << 40, st.Ino} {
			list = append(list, Mount{ID: i, Options: autofs.Options{HasPipe: true, PipeInode: pipe, ProcessGroup: other}})
		}
		if err := c.FindMasters(list); err != nil {
			t.Fatal(err)
		}
		// It does not descend from the first process.
		for i, want := range []master.Identity{{Kind: master.Outside, PID: self}, {Kind: master.None}, {Kind: master.Outside, PID: self}} {
			if list[i].Master.Identity != want {
				t.Errorf("%s, mount %d: %+v, want %+v", name, i, list[i].Master.Identity, want)
			}
		}
	}
}
