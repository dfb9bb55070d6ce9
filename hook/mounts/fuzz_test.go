package mounts

import (
	"strings"
	"testing"
)

// FuzzTable feeds mountinfo text, whose names are a container's.
func FuzzTable(f *testing.F) {
	f.Add("1 0 0:1 / / rw - rootfs rootfs rw\n2 1 0:54 / /mnt/a\\040b rw,relatime shared:1 - autofs systemd-1 rw,fd=3,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=7\n3 2 0:55 / /mnt/a\\040b rw - tmpfs none rw\n")
	f.Add("1 1 0:1 / / rw - autofs a b\n1 1 0:1 / / rw master:1 propagate_from:2 - autofs a b\n")
	f.Add("9 8 0:1 / /x rw - autofs - -\n8 9 0:1 / /x rw unbindable - autofs - -\n")
	f.Fuzz(func(t *testing.T, text string) {
		table, err := Read(strings.NewReader(text))
		if err != nil {
			return
		}
		list := table.Autofs()
		var parents []Propagation
		for _, m := range list {
			if table.ByID(m.ID) == nil {
				t.Errorf("mount %d is not found by its id", m.ID)
			}
			on := table.Descendants(m)
			if len(on) > len(table.Mounts) || len(table.Covers(m)) > len(on) {
				t.Errorf("%d mounts on mount %d, %d exactly over it, of %d", len(on), m.ID, len(table.Covers(m)), len(table.Mounts))
			}
			parents = append(parents, PropagationOf(m))
		}
		picked := map[int]bool{}
		for _, i := range Origins(parents) {
			if picked[i] {
				t.Errorf("mount %d twice", i)
			}
			picked[i] = true
		}
	})
}
