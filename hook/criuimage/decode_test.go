package criuimage

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func TestDecodeMountsErrors(t *testing.T) {
	good := image(mountsHead, root(), entry())
	second := 8 + 4 + len(root()) // where the autofs entry begins
	mounts := func(change ...field) []byte { return image(mountsHead, root(), entry(change...)) }
	for name, test := range map[string]struct {
		data   []byte
		want   error
		field  string
		offset int
	}{
		"empty":              {nil, ErrTruncated, "", 0},
		"half a head":        {good[:6], ErrTruncated, "", 4},
		"other kind":         {image(autofsHead), ErrMagic, "", 4},
		"half a length":      {good[:second+2], ErrTruncated, "", second},
		"half a record":      {good[:len(good)-1], ErrTruncated, "", second},
		"huge length":        {append(image(mountsHead), 0xff, 0xff, 0xff, 0xff), ErrTooLarge, "", 8},
		"not protobuf":       {image(mountsHead, []byte{0xff, 0xff, 0xff}), ErrEncoding, "", 8},
		"lying text length":  {image(mountsHead, []byte{0x3a, 0x7f, 'a'}), ErrEncoding, "7", 8},
		"endless varint":     {image(mountsHead, append([]byte{0x08}, strings.Repeat("\xff", 11)...)), ErrEncoding, "1", 8},
		"open group":         {image(mountsHead, protowire.AppendTag(nil, 40, protowire.StartGroupType)), ErrEncoding, "40", 8},
		"empty record":       {image(mountsHead, nil), ErrMissing, "fstype", 8},
		"no device":          {mounts(field{3, nil}), ErrMissing, "root_dev", second},
		"device is a text":   {mounts(field{3, "x"}), ErrMissing, "root_dev", second},
		"device 0":           {mounts(field{3, 0}), ErrRange, "root_dev", second},
		"device of 64 bits":  {mounts(field{3, 1 << 40}), ErrRange, "root_dev", second},
		"negative mount id":  {mounts(field{2, -1}), ErrRange, "mnt_id", second},
		"no mount point":     {mounts(field{7, nil}), ErrMissing, "mountpoint", second},
		"empty mount point":  {mounts(field{7, ""}), ErrMountPoint, "mountpoint", second},
		"relative":           {mounts(field{7, "mnt/auto"}), ErrMountPoint, "mountpoint", second},
		"dot dot":            {mounts(field{7, "/mnt/../etc"}), ErrMountPoint, "mountpoint", second},
		"dot dot at the top": {mounts(field{7, "/.."}), ErrMountPoint, "mountpoint", second},
		"trailing slash":     {mounts(field{7, "/mnt/auto/"}), ErrMountPoint, "mountpoint", second},
		"doubled slash":      {mounts(field{7, "/mnt//auto"}), ErrMountPoint, "mountpoint", second},
		"NUL":                {mounts(field{7, "/mnt/auto\x00x"}), ErrMountPoint, "mountpoint", second},
		"long mount point":   {mounts(field{7, "/" + strings.Repeat("a", maxPath)}), ErrTooLarge, "mountpoint", second},
		"long options":       {mounts(field{9, strings.Repeat("a", maxOptions+1)}), ErrTooLarge, "options", second},
		"same id twice":      {mounts(field{2, 300}), ErrDuplicate, "mnt_id", second},
		"own parent":         {mounts(field{4, 301}), ErrCycle, "parent_mnt_id", second},
		"circle of two":      {image(mountsHead, entry(), entry(field{2, 300}, field{4, 301})), ErrCycle, "parent_mnt_id", 0},
		"circle further up":  {image(mountsHead, entry(), encode(field{1, 1}, field{2, 300}, field{4, 9}), encode(field{1, 1}, field{2, 9}, field{4, 300})), ErrCycle, "parent_mnt_id", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := file{name: "mountpoints-5.img", data: test.data}
			got, err := f.decodeMounts(5)
			checkError(t, got == nil, err, f.name, test.want, test.field, test.offset)
		})
	}
}

func TestDecodeMounts(t *testing.T) {
	for name, test := range map[string]struct {
		data []byte
		want int
	}{
		"head only":      {image(mountsHead), 0},
		"old head":       {image([]uint32{magicMounts}, root(), entry()), 1},
		"others skipped": {image(mountsHead, encode(field{1, 5}, field{2, 1}, field{4, 2}, field{7, "../x"})), 0},
		"last value":     {image(mountsHead, append(entry(field{7, "x"}), encode(field{7, "/y"})...)), 1},
		"unknown field":  {image(mountsHead, append(entry(), encode(field{400, "x"}, field{401, 1})...)), 1},
		"fixed field":    {image(mountsHead, protowire.AppendFixed64(protowire.AppendTag(entry(), 50, protowire.Fixed64Type), 1)), 1},
		"first mount":    {image(mountsHead, encode(field{1, 16}, field{2, 300}, field{4, 300}), entry()), 1},
	} {
		f := file{name: "m", data: test.data}
		if got, err := f.decodeMounts(1); err != nil || len(got) != test.want {
			t.Errorf("%s: %d mounts instead of %d, %v", name, len(got), test.want, err)
		}
	}
}

// TestCycleIsLinear walks a chain that a quadratic search would not finish.
func TestCycleIsLinear(t *testing.T) {
	parents := make(map[uint32]uint32)
	for id := range uint32(maxMounts) {
		parents[id+1] = id
	}
	if id, found := cycle(parents); found {
		t.Errorf("cycle at %d in a chain", id)
	}
	parents[1] = maxMounts
	if _, found := cycle(parents); !found {
		t.Error("a circle of all mounts was not found")
	}
}

func TestDecodeSuperblockErrors(t *testing.T) {
	one := func(change ...field) []byte { return image(autofsHead, superblock(change...)) }
	for name, test := range map[string]struct {
		data   []byte
		want   error
		field  string
		offset int
	}{
		"other kind":        {image(mountsHead, superblock()), ErrMagic, "", 4},
		"no record":         {image(autofsHead), ErrTruncated, "", 8},
		"two records":       {image(autofsHead, superblock(), superblock()), ErrDuplicate, "", 12 + len(superblock())},
		"no fd":             {one(field{1, nil}), ErrMissing, "fd", 8},
		"fd -2":             {one(field{1, -2}), ErrRange, "fd", 8},
		"process group":     {one(field{2, -1}), ErrRange, "pgrp", 8},
		"timeout":           {one(field{3, -1}), ErrRange, "timeout", 8},
		"timeout of 64 bit": {one(field{3, 1 << 40}), ErrRange, "timeout", 8},
		"mode":              {one(field{6, 3}), ErrRange, "mode", 8},
		"uid -1":            {one(field{7, -1}), ErrRange, "uid", 8},
		"read_fd":           {one(field{9, -1}), ErrRange, "read_fd", 8},
	} {
		t.Run(name, func(t *testing.T) {
			f := file{name: "autofs-54.img", data: test.data}
			_, err := f.decodeSuperblock(54)
			checkError(t, true, err, f.name, test.want, test.field, test.offset)
		})
	}
}

func checkError(t *testing.T, empty bool, err error, name string, want error, field string, offset int) {
	t.Helper()
	var format *FormatError
	switch {
	case !empty:
		t.Errorf("a result beside error %v", err)
	case !errors.Is(err, want) || !errors.As(err, &format):
		t.Errorf("error %v instead of %v", err, want)
	case format.File != name || format.Field != field || format.Offset != int64(offset):
		t.Errorf("file %q field %q offset %d instead of field %q offset %d", format.File, format.Field, format.Offset, field, offset)
	case !strings.Contains(err.Error(), name):
		t.Errorf("no file name in %q", err)
	}
}
