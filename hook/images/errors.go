package images

import (
	"errors"
	"fmt"
)

// ErrNoImages means that the directory can be read and holds no mountpoints-*.img. It is
// not a checkpoint, or its files have been removed, or the container had no
// mount namespace of its own. A directory that is not there at all is
// fs.ErrNotExist.
var ErrNoImages = errors.New("no CRIU mountpoint images")

// Causes within a FormatError.
var (
	ErrTruncated  = errors.New("truncated")
	ErrTooLarge   = errors.New("over the limit")
	ErrMagic      = errors.New("wrong magic number")
	ErrEncoding   = errors.New("invalid protobuf")
	ErrMissing    = errors.New("required field is missing")
	ErrRange      = errors.New("value out of range")
	ErrMountPoint = errors.New("mount point is not a clean absolute path")
	ErrDuplicate  = errors.New("given twice")
	ErrCycle      = errors.New("mount is its own ancestor")
	ErrFileType   = errors.New("not a regular file")
)

// FormatError says what is wrong in an image file, and where. Err is one of the
// causes above.
type FormatError struct {
	File   string // name within the image directory
	Offset int64  // in bytes, of the record (or of the file's head) at fault
	Field  string // protobuf field, empty if the record itself is broken
	Err    error
}

func (e *FormatError) Error() string {
	where := fmt.Sprintf("CRIU image %q, offset %d", e.File, e.Offset)
	if e.Field != "" {
		where += ", field " + e.Field
	}
	return where + ": " + e.Err.Error()
}

func (e *FormatError) Unwrap() error { return e.Err }
