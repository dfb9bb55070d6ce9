package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/dirs"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// note is a file that tells later runs what this one has done to a container, or
// is about to do and a kill would leave half done. Who writes or removes one has
// the container's lock; sweep removes those of containers that have ended.
type note struct {
	kind      *noteKind
	dir, name string
}

// noteKind is what notes of one kind have in common. The names of the files are
// a contract with uninstall, and with the release before an upgrade.
type noteKind struct {
	folder, suffix string
	what           string // names such a note in errors
}

// errUnusable is of a note that another release wrote, or that is broken.
var errUnusable = errors.New("not of this version, or not readable")

// of is the container's note; a key tells it from others of the kind.
func (k *noteKind) of(s store, init *nsenter.Process, key ...int) *note {
	name := init.Identity()
	for _, number := range key {
		name += "." + strconv.Itoa(number)
	}
	return &note{k, filepath.Join(s.dir, k.folder), name + k.suffix}
}

// all are the notes that the container has, ordered by name. Beside an error are
// those that could be listed.
func (k *noteKind) all(s store, init *nsenter.Process) ([]*note, error) {
	dir := filepath.Join(s.dir, k.folder)
	entries, err := dirs.Entries(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // nothing was ever noted
	}
	var list []*note
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, init.Identity()+".") && strings.HasSuffix(name, k.suffix) {
			list = append(list, &note{k, dir, name})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list, k.wrap(err)
}

// wrap says what it is that an error is about.
func (k *noteKind) wrap(err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", k.what, err)
	}
	return err
}

func (n *note) path() string { return filepath.Join(n.dir, n.name) }

// exists reports whether anything has the note's name.
func (n *note) exists() bool {
	_, err := os.Lstat(n.path())
	return err == nil
}

// write writes a note that is not JSON with a version.
func (n *note) write(data []byte) error { return writeFile(n.dir, n.name, data) }

// save writes the JSON form of content, which has the version.
func (n *note) save(content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return n.kind.wrap(err)
	}
	return n.write(data)
}

// read reads what write wrote: os.ErrNotExist if there is none.
func (n *note) read() ([]byte, error) {
	data, err := os.ReadFile(n.path())
	return data, n.kind.wrap(err)
}

// load reads what save wrote: errUnusable if this release did not, os.ErrNotExist
// if there is none.
func (n *note) load(content any) error {
	data, err := n.read()
	if err != nil {
		return err
	}
	var head struct {
		Version int `json:"version"`
	}
	if err = json.Unmarshal(data, &head); err == nil && head.Version != recordVersion {
		err = fmt.Errorf("version %d, want %d", head.Version, recordVersion)
	}
	if err == nil {
		err = json.Unmarshal(data, content)
	}
	return n.unusable(err)
}

// unusable is errUnusable with the reason, if there is one.
func (n *note) unusable(why error) error {
	if why != nil {
		why = fmt.Errorf("%s: %w: %s: %w", n.kind.what, errUnusable, n.path(), why)
	}
	return why
}

// loadOrRemove is load; no later run can use a note either that is unusable.
func (n *note) loadOrRemove(content any) error {
	err := n.load(content)
	if errors.Is(err, errUnusable) {
		err = errors.Join(err, n.remove())
	}
	return err
}

// remove removes the note, if it is there.
func (n *note) remove() error { return removeFile(n.path(), n.kind.what) }
