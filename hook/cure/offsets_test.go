package cure

import (
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
)

// offsetTable has an entry of an indirect map with two offset triggers, one of them
// covered by its mount.
const offsetTable = `1 1 0:1 / / rw - rootfs rootfs rw
2 1 0:2 / /indirect rw - autofs /etc/auto.indirect rw,fd=5,pgrp=7,timeout=300,minproto=5,maxproto=5,indirect,pipe_ino=100
3 2 0:3 / /indirect/multi rw - tmpfs tmpfs rw
4 3 0:4 / /indirect/multi/sub rw - autofs /etc/auto.indirect rw,fd=5,pgrp=7,timeout=300,minproto=5,maxproto=5,offset,pipe_ino=100
5 3 0:5 / /indirect/multi/other rw - autofs /etc/auto.indirect rw,fd=5,pgrp=7,timeout=300,minproto=5,maxproto=5,offset,pipe_ino=100
6 5 0:6 / /indirect/multi/other rw - tmpfs tmpfs rw
7 1 0:7 / /alone rw - autofs /etc/auto.indirect rw,fd=5,pgrp=7,timeout=300,minproto=5,maxproto=5,offset,pipe_ino=100
`

// TestKeys: the key of offset triggers is found, and a mount in it that is not the
// daemon's, because of which the key is not detached.
func TestKeys(t *testing.T) {
	for name, test := range map[string]struct{ more, foreignMount string }{
		"the daemon's only":         {"", ""},
		"a bind mount":              {"8 3 0:8 / /indirect/multi/x rw - ext4 /dev/vda rw\n", "/indirect/multi/x"},
		"below an offset's mount":   {"8 6 0:8 / /indirect/multi/other/x rw - tmpfs x rw\n", "/indirect/multi/other/x"},
		"another daemon's trigger":  {"8 3 0:8 / /indirect/multi/x rw - autofs x rw,fd=5,pgrp=9,timeout=0,minproto=5,maxproto=5,offset,pipe_ino=200\n", "/indirect/multi/x"},
		"a unit's trigger":          {"8 3 0:8 / /indirect/multi/x rw - autofs systemd-1 rw,fd=5,pgrp=1,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=100\n", "/indirect/multi/x"},
		"over the entry's own root": {"8 3 0:8 / /indirect/multi rw - tmpfs x rw\n", "/indirect/multi"},
	} {
		table, err := mounts.Read(strings.NewReader(offsetTable + test.more))
		if err != nil {
			t.Fatal(err)
		}
		var triggers []*container.Mount
		for _, id := range []int{4, 5, 7} {
			triggers = append(triggers, &container.Mount{ID: id, Path: table.ByID(id).Mountpoint})
		}
		keys := keysOf(table, triggers)
		if len(keys) != 1 || keys[0].mount.ID != 3 || len(keys[0].offsets) != 2 {
			t.Fatalf("%s: keys %+v", name, keys)
		}
		got := ""
		if m := foreignMount(table, keys[0]); m != nil {
			got = m.Mountpoint
		}
		if got != test.foreignMount {
			t.Errorf("%s: foreign mount %q, want %q", name, got, test.foreignMount)
		}
	}
}
