//go:build linux

package autofs

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// PacketType is the kind of a request to the master (enum of
// include/uapi/linux/auto_fs.h, protocol 5).
type PacketType int32

// The requests of protocol 5.
const (
	MissingIndirect PacketType = 3 // mount the named entry
	ExpireIndirect  PacketType = 4 // unmount the named entry
	MissingDirect   PacketType = 5 // mount on the root; also of offset mounts
	ExpireDirect    PacketType = 6 // unmount the covers of the root
)

// Packet is one request from a master's pipe, protocol 5 (struct
// autofs_v5_packet).
type Packet struct {
	Type   PacketType
	Token  uint32 // for the answer; one counter for all mounts of the machine, never 0
	Device uint64 // st_dev of the mount
	Inode  uint64 // of the mount's root
	Name   string // the entry; a meaningless number for direct and offset mounts
	UID    uint32 // of the process that waits, in the user namespace of the pipe's opener
	GID    uint32
	PID    uint32 // its thread, in the master's pid namespace
	TGID   uint32 // its process
}

// PacketSize is the size of a packet on 64-bit kernels: 300 bytes, padded to the
// alignment of the 64-bit inode number. Only i386 sends 300. Read at least this much: the
// pipe is in packet mode and drops the rest.
const PacketSize = 304

// Fields of struct autofs_v5_packet by offset.
const (
	packetProto   = 0
	packetType    = 4
	packetToken   = 8
	packetDevice  = 12
	packetInode   = 16
	packetUID     = 24
	packetGID     = 28
	packetPID     = 32
	packetTGID    = 36
	packetLen     = 40
	packetName    = 44
	packetNameMax = unix.NAME_MAX + 1
	packetMinSize = packetName + packetNameMax
)

// ErrPacket is at the bottom of every error of ParsePacket.
var ErrPacket = errors.New("invalid autofs packet")

// ParsePacket parses one packet as read from the pipe. Errors wrap [ErrPacket].
func ParsePacket(b []byte) (Packet, error) {
	if len(b) != packetMinSize && len(b) != PacketSize {
		return Packet{}, fmt.Errorf("%w: %d bytes instead of %d or %d", ErrPacket, len(b), packetMinSize, PacketSize)
	}
	word := func(offset int) uint32 { return binary.NativeEndian.Uint32(b[offset:]) }
	if proto := word(packetProto); proto != 5 {
		return Packet{}, fmt.Errorf("%w: protocol %d instead of 5", ErrPacket, proto)
	}
	p := Packet{
		Type:   PacketType(word(packetType)),
		Token:  word(packetToken),
		Device: decodeDevice(word(packetDevice)),
		Inode:  binary.NativeEndian.Uint64(b[packetInode:]),
		UID:    word(packetUID),
		GID:    word(packetGID),
		PID:    word(packetPID),
		TGID:   word(packetTGID),
	}
	if p.Type < MissingIndirect || p.Type > ExpireDirect {
		return Packet{}, fmt.Errorf("%w: unknown type %d", ErrPacket, int32(p.Type))
	}
	n := word(packetLen)
	if n >= packetNameMax {
		return Packet{}, fmt.Errorf("%w: name of %d bytes, more than %d", ErrPacket, n, packetNameMax-1)
	}
	p.Name = string(b[packetName : packetName+int(n)])
	return p, nil
}
