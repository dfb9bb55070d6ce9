package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Kind is a kind of entries, whose content is a T.
type Kind[T any] struct {
	folder, suffix string
	version        int    // of the form of T
	what           string // names such an entry in errors
	// legacy, if not nil, reads the form of the release before, which has no version.
	legacy func(data []byte) (T, error)
}

// Entry is a file with the content T, about a process: a container's first one, or
// the CRIU of a restore.
type Entry[T any] struct {
	kind      *Kind[T]
	dir, name string
}

var (
	// ErrUnusable means that an entry was written by another release, or is damaged.
	ErrUnusable = errors.New("not of this version, or not readable")
	// ErrPending means that an interrupted operation has neither been undone nor
	// finished yet.
	ErrPending = errors.New("an operation that an interrupted run has started is still pending: run repair again")
)

// Of returns the entry about a process; keys tell it from others of its kind.
func (k *Kind[T]) Of(s Store, p *nsenter.Process, keys ...int) *Entry[T] {
	name := p.Identity()
	for _, key := range keys {
		name += "." + strconv.Itoa(key)
	}
	return &Entry[T]{k, filepath.Join(s.dir, k.folder), name + k.suffix}
}

// Begin writes an intent. The error is [ErrPending] if there is one with these keys:
// the operation that it describes could not be recovered without it.
func (k *Kind[T]) Begin(s Store, p *nsenter.Process, content T, keys ...int) (*Entry[T], error) {
	e := k.Of(s, p, keys...)
	if e.Exists() {
		return nil, k.wrap(ErrPending)
	}
	return e, e.Save(content)
}

// All returns the entries about a process, ordered by name. Beside an error are those
// that could be listed.
func (k *Kind[T]) All(s Store, p *nsenter.Process) ([]*Entry[T], error) {
	dir := filepath.Join(s.dir, k.folder)
	names, err := namesOf(dir, p)
	var list []*Entry[T]
	for _, name := range names {
		if strings.HasSuffix(name, k.suffix) {
			list = append(list, &Entry[T]{k, dir, name})
		}
	}
	return list, k.wrap(err)
}

// namesOf lists the files about a process, in order.
func namesOf(dir string, p *nsenter.Process) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // none was ever written
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), p.Identity()+".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, err
}

// wrap says what it is that an error is about.
func (k *Kind[T]) wrap(err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", k.what, err)
	}
	return err
}

func (e *Entry[T]) path() string { return filepath.Join(e.dir, e.name) }

// Exists reports whether anything has the entry's name.
func (e *Entry[T]) Exists() bool {
	_, err := os.Lstat(e.path())
	return err == nil
}

// head is the part of an entry's JSON form that all kinds share.
type head struct {
	Version int `json:"version"`
}

// Save writes the entry, in the place of an older one: the version, then the fields
// of the content.
func (e *Entry[T]) Save(content T) error {
	version, err := json.Marshal(head{e.kind.version})
	if err != nil {
		return e.kind.wrap(err)
	}
	data, err := json.Marshal(content)
	if err != nil {
		return e.kind.wrap(err)
	}
	data = append(append(bytes.TrimSuffix(version, []byte("}")), ','), bytes.TrimPrefix(data, []byte("{"))...)
	return e.kind.wrap(writeFile(e.dir, e.name, data))
}

// Load reads the entry: fs.ErrNotExist if there is none. It removes an entry that is
// [ErrUnusable].
func (e *Entry[T]) Load() (T, error) {
	content, err := e.Peek()
	if errors.Is(err, ErrUnusable) {
		err = errors.Join(err, e.Commit())
	}
	return content, err
}

// Peek is Load, and removes nothing.
func (e *Entry[T]) Peek() (T, error) {
	var content T
	data, err := os.ReadFile(e.path())
	if err != nil {
		return content, e.kind.wrap(err)
	}
	if err := e.kind.parse(data, &content); err != nil {
		var none T
		return none, fmt.Errorf("%s: %w: %s: %w", e.kind.what, ErrUnusable, e.path(), err)
	}
	return content, nil
}

func (k *Kind[T]) parse(data []byte, content *T) (err error) {
	if k.legacy != nil {
		if *content, err = k.legacy(data); err == nil {
			return nil
		}
	}
	var h head
	err = json.Unmarshal(data, &h)
	if err == nil && h.Version != k.version {
		err = fmt.Errorf("version %d, want %d", h.Version, k.version)
	}
	if err == nil {
		err = json.Unmarshal(data, content)
	}
	return err
}

// Commit removes the entry, if it is there: the operation is complete, or undone.
func (e *Entry[T]) Commit() error { return removeFile(e.path(), e.kind.what) }
