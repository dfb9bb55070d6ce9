package criuimage

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// The tests write images with protowire, field by field, so that they can also
// write what CRIU never would.

type field struct {
	num   protowire.Number
	value any // int, string
}

func encode(fields ...field) []byte {
	var b []byte
	for _, f := range fields {
		switch v := f.value.(type) {
		case int:
			b = protowire.AppendTag(b, f.num, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(int64(v)))
		case string:
			b = protowire.AppendTag(b, f.num, protowire.BytesType)
			b = protowire.AppendString(b, v)
		}
	}
	return b
}

func image(magics []uint32, records ...[]byte) []byte {
	var b []byte
	for _, m := range magics {
		b = binary.NativeEndian.AppendUint32(b, m)
	}
	for _, r := range records {
		b = binary.NativeEndian.AppendUint32(b, uint32(len(r)))
		b = append(b, r...)
	}
	return b
}

var (
	mountsHead = []uint32{magicCommon, magicMounts}
	autofsHead = []uint32{magicCommon, magicAutofs}
	clocksHead = []uint32{magicCommon, magicClocks}
)

const systemdOptions = "fd=9,pgrp=80,timeout=0,minproto=5,maxproto=5,direct,pipe_ino=156810"

// entry is a valid autofs mnt_entry, with fields replaced or, if their value is
// nil, left out.
func entry(change ...field) []byte {
	fields := []field{
		{1, 18},
		{2, 301},
		{3, 54},
		{4, 300},
		{5, 0x200000},
		{6, "/"},
		{7, "/mnt/auto"},
		{8, "systemd-1"},
		{9, systemdOptions},
		{10, 7},
		{11, 3},
		{17, 0},
	}
	return encode(replace(fields, change)...)
}

func superblock(change ...field) []byte {
	fields := []field{{1, 9}, {2, 1}, {3, 60}, {4, 5}, {5, 5}, {6, 0}, {9, 44}}
	return encode(replace(fields, change)...)
}

func replace(fields, change []field) []field {
	for _, c := range change {
		found := false
		for i := range fields {
			if fields[i].num == c.num {
				fields[i], found = c, true
			}
		}
		if !found {
			fields = append(fields, c)
		}
	}
	return fields
}

// root is the mount at the top of a container's tree.
func root() []byte {
	return encode(field{1, 16}, field{2, 300}, field{3, 42}, field{4, 12}, field{5, 0},
		field{6, "/rootfs"}, field{7, "/"}, field{8, "/dev/sda1"}, field{9, "rw"})
}

// write makes an image directory and opens it.
func write(t testing.TB, files map[string][]byte) *os.File {
	t.Helper()
	path := t.TempDir()
	for name, data := range files {
		if strings.Contains(name, "/") {
			t.Fatalf("file name %q", name)
		}
		if err := os.WriteFile(filepath.Join(path, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}
