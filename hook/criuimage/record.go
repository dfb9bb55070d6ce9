package criuimage

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/VictoriaMetrics/easyproto"
)

// Magic numbers of criu/include/magic.h.
const (
	magicCommon = 0x54564319 // IMG_COMMON_MAGIC
	magicMounts = 0x55563928 // MNTS_MAGIC
	magicAutofs = 0x49353943 // AUTOFS_MAGIC
	magicFiles  = 0x56303138 // FILES_MAGIC
	magicClocks = 0x43114433 // TIMENS_MAGIC
)

// maxRecord bounds one protobuf message. A mount entry is two or three paths and options
// of at most a page; 1 MiB leaves room for future fields.
const maxRecord = 1 << 20

// file is one image in memory.
type file struct {
	name string
	data []byte
}

func (f *file) fail(offset int, field string, err error) error {
	return &FormatError{File: f.name, Offset: int64(offset), Field: field, Err: err}
}

// records checks the magic numbers of the image and calls each for every record.
func (f *file) records(magic uint32, each func(offset int, record []byte) error) error {
	return f.recordsUpTo(maxRecord, magic, each)
}

// recordsUpTo is records with another limit for a record, in bytes.
func (f *file) recordsUpTo(limit uint32, magic uint32, each func(offset int, record []byte) error) error {
	offset := 0
	word := func() (uint32, error) {
		if len(f.data)-offset < 4 {
			return 0, f.fail(offset, "", fmt.Errorf("%w: %d bytes where 4 are needed", ErrTruncated, len(f.data)-offset))
		}
		offset += 4
		return binary.NativeEndian.Uint32(f.data[offset-4:]), nil
	}

	got, err := word()
	if err == nil && got == magicCommon {
		got, err = word()
	}
	if err != nil {
		return err
	}
	if got != magic {
		return f.fail(offset-4, "", fmt.Errorf("%w: %#08x instead of %#08x", ErrMagic, got, magic))
	}

	for offset < len(f.data) {
		start := offset
		size, err := word()
		if err != nil {
			return err
		}
		if size > limit {
			return f.fail(start, "", fmt.Errorf("%w: record of %d bytes, limit %d", ErrTooLarge, size, limit))
		}
		if rest := len(f.data) - offset; int(size) > rest {
			return f.fail(start, "", fmt.Errorf("%w: record of %d bytes, %d left", ErrTruncated, size, rest))
		}
		record := f.data[offset : offset+int(size)]
		offset += int(size)
		if err := each(start, record); err != nil {
			return err
		}
	}
	return nil
}

// message is one decoded protobuf message: the last value of each field, which is the one
// that counts for a field that is not repeated.
type message struct {
	file   *file
	offset int
	number map[uint32]uint64
	text   map[uint32][]byte
	err    error
}

// decode splits a record into fields. It skips fixed-size values, which the two messages
// do not use, and unknown field numbers. Groups, which no message of CRIU uses, are an
// error.
//
// It does not use protowire, which reads the program file at start-up
// (internal/detrand): a quarter of the time of a run without work.
func (f *file) decode(offset int, record []byte) (*message, error) {
	m := &message{
		file: f, offset: offset,
		number: make(map[uint32]uint64),
		text:   make(map[uint32][]byte),
	}
	err := f.fields(offset, record, func(field *easyproto.FieldContext) error {
		if v, ok := field.Uint64(); ok {
			m.number[field.FieldNum] = v
		} else if v, ok := field.Bytes(); ok {
			m.text[field.FieldNum] = v
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// failed keeps the first error, so that a decoder is a plain list of fields.
func (m *message) failed(field string, err error) {
	if m.err == nil {
		m.err = m.file.fail(m.offset, field, err)
	}
}

func (m *message) uint32(num uint32, field string, required bool) uint32 {
	v, ok := m.number[num]
	if !ok && required {
		m.failed(field, ErrMissing)
	}
	if v > math.MaxUint32 {
		m.failed(field, fmt.Errorf("%w: %d", ErrRange, v))
	}
	return uint32(v)
}

// integer returns a required int32, which protobuf sign-extends to 64 bits.
func (m *message) integer(num uint32, field string, low, high int64) int {
	v, ok := m.number[num]
	if !ok {
		m.failed(field, ErrMissing)
		return 0
	}
	n := int64(v)
	if n < low || n > high {
		m.failed(field, fmt.Errorf("%w: %d is not within %d..%d", ErrRange, n, low, high))
	}
	return int(n)
}

// string returns a required text.
func (m *message) string(num uint32, field string, limit int) string {
	v, ok := m.text[num]
	if !ok {
		m.failed(field, ErrMissing)
	}
	if len(v) > limit {
		m.failed(field, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(v), limit))
		return ""
	}
	return string(v)
}
