package criuimage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/VictoriaMetrics/easyproto"
)

// Watch is one inotify watch of a checkpointed process (inotify_wd_entry of
// images/fsnotify.proto).
type Watch struct {
	// Path is the path of the watched file, within the mount namespace of the mount
	// MountID. "" if CRIU found none: then the restore opens the file by its handle, which
	// works only on the same filesystem.
	Path string
	// MountID is the old id of a mount that shows the file; 0 if CRIU saved none.
	MountID uint32
	// Device is the old st_dev of the watched file, in CRIU's encoding.
	Device uint32
	// Inode is its inode number.
	Inode uint64
}

// filesName is the image that describes all open files of a checkpoint (CRIU 3.3
// and newer).
const filesName = "files.img"

const (
	typeInotify = 8 // enum fd_types of images/fdinfo.proto
	// maxWatches bounds the watches of a checkpoint. The kernel's default bound for
	// one user is at most 1048576 (fs.inotify.max_user_watches).
	maxWatches = 1 << 20
	// maxFilesFile bounds the image, and one record of it: all watches of an inotify
	// file are in one record.
	maxFilesFile = 64 << 20
)

// entries calls each for every file of a kind in a files image, with the message that
// describes it, field number of file_entry (images/fdinfo.proto).
func (f *file) entries(kind uint64, number uint32, each func(offset int, entry []byte) error) error {
	return f.recordsUpTo(maxFilesFile, magicFiles, func(offset int, record []byte) error {
		var have uint64
		var entry []byte
		err := f.fields(offset, record, func(v *easyproto.FieldContext) error {
			switch v.FieldNum {
			case 1:
				have, _ = v.Uint64()
			case number:
				entry, _ = v.MessageData()
			}
			return nil
		})
		if err != nil || have != kind {
			return err
		}
		return each(offset, entry)
	})
}

// decodeWatches returns the inotify watches of a files image. It skips other files.
func (f *file) decodeWatches() ([]Watch, error) {
	var watches []Watch
	err := f.entries(typeInotify, 13, func(offset int, inotify []byte) error {
		return f.fields(offset, inotify, func(v *easyproto.FieldContext) error {
			entry, isMessage := v.MessageData()
			if v.FieldNum != 5 || !isMessage {
				return nil
			}
			if len(watches) >= maxWatches {
				return f.fail(offset, "wd", fmt.Errorf("%w: more than %d watches", ErrTooLarge, maxWatches))
			}
			w, err := f.decodeWatch(offset, entry)
			watches = append(watches, w)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return watches, nil
}

// decodeWatch reads one inotify_wd_entry and the fh_entry within it.
func (f *file) decodeWatch(offset int, entry []byte) (Watch, error) {
	var w Watch
	var handle []byte
	err := f.fields(offset, entry, func(v *easyproto.FieldContext) (err error) {
		switch v.FieldNum {
		case 2:
			w.Inode, _ = v.Uint64()
		case 5:
			w.Device, err = f.number32(offset, "s_dev", v)
		case 7:
			handle, _ = v.MessageData()
		}
		return err
	})
	if err != nil {
		return w, err
	}
	if handle == nil {
		return w, f.fail(offset, "f_handle", ErrMissing)
	}
	return w, f.fields(offset, handle, func(v *easyproto.FieldContext) (err error) {
		switch v.FieldNum {
		case 4:
			path, _ := v.Bytes()
			w.Path = string(path)
			if len(w.Path) > maxPath {
				return f.fail(offset, "path", fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(w.Path), maxPath))
			}
			if strings.IndexByte(w.Path, 0) >= 0 {
				return f.fail(offset, "path", fmt.Errorf("%w: a NUL in it", ErrRange))
			}
		case 5:
			w.MountID, err = f.number32(offset, "mnt_id", v)
		}
		return err
	})
}

func (f *file) number32(offset int, field string, v *easyproto.FieldContext) (uint32, error) {
	n, ok := v.Uint64()
	if !ok || n > math.MaxUint32 {
		return 0, f.fail(offset, field, fmt.Errorf("%w: %d", ErrRange, n))
	}
	return uint32(n), nil
}

// fields calls each for every field of a message. It builds no map, because a checkpoint
// may have a hundred thousand messages.
func (f *file) fields(offset int, message []byte, each func(*easyproto.FieldContext) error) error {
	var field easyproto.FieldContext
	for len(message) > 0 {
		tag, _ := binary.Uvarint(message)
		rest, err := field.NextField(message)
		if err == nil && field.FieldNum == 0 {
			err = errors.New("field number 0")
		}
		if err != nil {
			name := ""
			if number := tag >> 3; number > 0 {
				name = fmt.Sprint(number)
			}
			return f.fail(offset, name, fmt.Errorf("%w: %w", ErrEncoding, err))
		}
		if err := each(&field); err != nil {
			return err
		}
		message = rest
	}
	return nil
}
