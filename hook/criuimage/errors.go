package criuimage

import (
	"errors"
	"fmt"
)

// ErrNoImages means that the directory holds no mountpoints-*.img: it is not a checkpoint,
// or its files have been removed, or the container had no mount namespace of its own. A
// missing directory is fs.ErrNotExist.
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

// FormatError is an invalid image file. Err is one of the causes above.
type FormatError struct {
	File   string // name within the image directory
	Offset int64  // in bytes, of the invalid record or magic number
	Field  string // protobuf field, empty if the record itself is invalid
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
