package criuimage

import (
	"fmt"
	"math"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
)

// Superblock is an autofs superblock as CRIU saved it (autofs_entry of
// images/autofs.proto).
type Superblock struct {
	// Device is the old st_dev, from the name of the file.
	Device uint64
	// FD is the number of the pipe's writing end in the process that mounted
	// it, -1 if the mount was catatonic.
	FD int
	// ProcessGroup of the master in the container's pid namespace; useless for a
	// catatonic mount, where it is the number on the host.
	ProcessGroup int
	// Timeout in whole seconds; 0 is never.
	Timeout            time.Duration
	MinProto, MaxProto int
	Mode               autofs.Type
	// UID and GID own the root directory; -1 when not saved, which means 0.
	UID, GID int
	// ReadFD is the reading end in the master, saved only if the master had
	// closed the writing end (systemd does); else -1.
	ReadFD int
}

// Catatonic reports whether the mount had no master.
func (s Superblock) Catatonic() bool { return s.FD < 0 }

// decodeSuperblock reads an autofs image, which holds one record.
func (f *file) decodeSuperblock(device uint64) (Superblock, error) {
	s := Superblock{Device: device, UID: -1, GID: -1, ReadFD: -1}
	count := 0
	err := f.records(magicAutofs, func(offset int, record []byte) error {
		if count++; count > 1 {
			return f.fail(offset, "", errSecond)
		}
		m, err := f.decode(offset, record)
		if err != nil {
			return err
		}
		s.FD = m.integer(1, "fd", -1, math.MaxInt32)
		s.ProcessGroup = m.integer(2, "pgrp", 0, math.MaxInt32)
		s.Timeout = time.Duration(m.integer(3, "timeout", 0, math.MaxInt32)) * time.Second
		s.MinProto = m.integer(4, "minproto", 0, math.MaxInt32)
		s.MaxProto = m.integer(5, "maxproto", 0, math.MaxInt32)
		s.Mode = autofs.Type(m.integer(6, "mode", int64(autofs.Direct), int64(autofs.Offset)))
		s.UID = m.owner(7, "uid")
		s.GID = m.owner(8, "gid")
		if _, ok := m.number[9]; ok {
			s.ReadFD = m.integer(9, "read_fd", 0, math.MaxInt32)
		}
		return m.err
	})
	if err == nil && count == 0 {
		err = f.fail(len(f.data), "", ErrTruncated)
	}
	return s, err
}

var errSecond = fmt.Errorf("%w: superblock", ErrDuplicate)

// owner reads an optional uid or gid. The image has an int32 for the kernel's
// u32, so numbers above 2^31 come out negative.
func (m *message) owner(num uint32, field string) int {
	if _, ok := m.number[num]; !ok {
		return -1
	}
	id := uint32(int32(m.integer(num, field, math.MinInt32, math.MaxInt32)))
	if id == math.MaxUint32 {
		m.failed(field, fmt.Errorf("%w: %d is not an id", ErrRange, id))
	}
	return int(id)
}
