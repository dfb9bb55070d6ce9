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

// Kind is a kind of entries with the content T.
type Kind[T any] struct {
	folder, suffix string
	version        int    // of the JSON form of T
	label          string // the name of such an entry in errors
	// legacy, if not nil, reads the form of the release before, which has no version.
	legacy func(data []byte) (T, error)
}

// Entry is a file with the content T about a process: the first process of a container,
// or the CRIU process of a restore.
type Entry[T any] struct {
	kind      *Kind[T]
	dir, name string
}

var (
	// errUnusable means that an entry has another version or is damaged.
	errUnusable = errors.New("not of this version, or damaged")
	// ErrPending means that an interrupted operation has been neither undone nor
	// finished yet.
	ErrPending = errors.New("an operation of an interrupted run is still pending: run repair again")
)

// Of returns the entry about a process, which need not exist. The keys distinguish it
// from other entries of its kind about the same process.
func (k *Kind[T]) Of(s Store, p *nsenter.Process, keys ...int) *Entry[T] {
	name := p.Identity()
	for _, key := range keys {
		name += "." + strconv.Itoa(key)
	}
	return &Entry[T]{k, filepath.Join(s.dir, k.folder), name + k.suffix}
}

// Begin writes an intent. The error is [ErrPending] if an entry with these keys exists,
// which is needed to recover its operation.
func (k *Kind[T]) Begin(s Store, p *nsenter.Process, content T, keys ...int) (*Entry[T], error) {
	e := k.Of(s, p, keys...)
	if e.Exists() {
		return nil, k.wrap(ErrPending)
	}
	return e, e.Save(content)
}

// All returns the entries about a process, ordered by name; with an error, those that
// could be listed.
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

// namesOf returns the names of the files about a process, in order.
func namesOf(dir string, p *nsenter.Process) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no entry has been written yet
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

// wrap adds the kind's name to an error.
func (k *Kind[T]) wrap(err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", k.label, err)
	}
	return err
}

func (e *Entry[T]) path() string { return filepath.Join(e.dir, e.name) }

// Exists reports whether the entry's file exists.
func (e *Entry[T]) Exists() bool {
	_, err := os.Lstat(e.path())
	return err == nil
}

// header has the fields that the JSON forms of all kinds share.
type header struct {
	Version int `json:"version"`
}

// Save writes the entry, or replaces it. Its JSON form has the version and then the
// fields of the content.
func (e *Entry[T]) Save(content T) error {
	version, err := json.Marshal(header{e.kind.version})
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

// Load reads the entry. The error is fs.ErrNotExist if there is none. Load removes an entry
// that has another version or is damaged, and returns an error.
func (e *Entry[T]) Load() (T, error) {
	content, err := e.Peek()
	if errors.Is(err, errUnusable) {
		err = errors.Join(err, e.Commit())
	}
	return content, err
}

// Peek is Load without the removal.
func (e *Entry[T]) Peek() (T, error) {
	var content T
	data, err := os.ReadFile(e.path())
	if err != nil {
		return content, e.kind.wrap(err)
	}
	if err := e.kind.parse(data, &content); err != nil {
		var none T
		return none, fmt.Errorf("%s: %w: %s: %w", e.kind.label, errUnusable, e.path(), err)
	}
	return content, nil
}

func (k *Kind[T]) parse(data []byte, content *T) (err error) {
	if k.legacy != nil {
		if *content, err = k.legacy(data); err == nil {
			return nil
		}
	}
	var h header
	err = json.Unmarshal(data, &h)
	if err == nil && h.Version != k.version {
		err = fmt.Errorf("version %d, want %d", h.Version, k.version)
	}
	if err == nil {
		err = json.Unmarshal(data, content)
	}
	return err
}

// Commit removes the entry, if it exists, when the operation is complete or undone.
func (e *Entry[T]) Commit() error {
	if err := os.Remove(e.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return e.kind.wrap(err)
	}
	return nil
}
