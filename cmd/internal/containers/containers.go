// Package containers finds running containers by name, without an engine's
// library: in the state that runc and crun keep of each container, under whatever
// engine, and in the list of names that podman and CRI-O keep (containers/storage).
//
// It trusts files that only root can write, as the engines do. Each names a process
// and its start time, and only that process counts: state that outlives its
// container, or a process number that was given to another process, finds nothing.
//
// LXC keeps no such files: the number of a container's first process is known to its
// monitor only, which answers lxc-info(1).
package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Container is a running container.
type Container struct {
	// ID is what its runtime calls it, and Names are what podman or CRI-O call it.
	ID    string
	Names []string
	// PID is its first process.
	PID int
	// State is the file in which it was found.
	State string
}

func (c Container) String() string {
	return fmt.Sprintf("%q (process %d, %s)", strings.Join(append([]string{c.ID}, c.Names...), " "), c.PID, c.State)
}

// states are the files with the state of each container. The last but one part is the
// container's ID.
var states = []string{
	"run/runc/*/state.json",
	"run/crun/*/status",
	"run/containerd/runc/*/*/state.json", // of each namespace of containerd
	"run/containerd/runc/*/*/status",
	"run/docker/runtime-runc/*/*/state.json",
}

// stores are where containers/storage keeps its lists of names by default; podman's is
// also found by the directory of each container.
const stores = "var/lib/containers/storage/*-containers"

// lists are the files of a store. The second one has the containers that do not outlive
// a boot.
var lists = []string{"containers.json", "volatile-containers.json"}

// List finds the running containers below root, which is "/". Files that cannot be
// used are part of the error; the containers of all others are there.
func List(root string) ([]Container, error) {
	var list []Container
	var errs []error
	directories, _ := filepath.Glob(filepath.Join(root, stores))
	for _, pattern := range states {
		files, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, file := range files {
			c, store, err := readState(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it has ended
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			list = append(list, c)
			if store != "" && !slices.Contains(directories, store) {
				directories = append(directories, store)
			}
		}
	}
	known := map[string][]string{}
	for _, directory := range directories {
		errs = append(errs, readNames(directory, known))
	}
	for i := range list {
		list[i].Names = known[list[i].ID]
	}
	return list, errors.Join(errs...)
}

// readState reads the state of a container, and where the container's store is, if
// podman made it: the bundle is STORE/ID/userdata.
func readState(file string) (c Container, store string, err error) {
	var state struct {
		// runc, libcontainer/container.go, BaseState
		PID    int    `json:"init_process_pid"`
		Start  uint64 `json:"init_process_start"`
		Config struct {
			Labels []string `json:"labels"`
		} `json:"config"`
		// crun, src/libcrun/status.c
		CrunPID   int    `json:"pid"`
		CrunStart uint64 `json:"process-start-time"`
		Bundle    string `json:"bundle"`
	}
	if err := readJSON(file, &state); err != nil {
		return c, "", err
	}
	if filepath.Base(file) == "status" {
		state.PID, state.Start = state.CrunPID, state.CrunStart
	}
	for _, label := range state.Config.Labels {
		if bundle, ok := strings.CutPrefix(label, "bundle="); ok {
			state.Bundle = bundle
		}
	}
	p, err := nsenter.OpenIdentity(state.PID, state.Start)
	if err != nil {
		return c, "", fmt.Errorf("container state %s: %w", file, err)
	}
	defer p.Close()
	if filepath.Base(state.Bundle) == "userdata" {
		store = filepath.Dir(filepath.Dir(state.Bundle))
	}
	return Container{ID: filepath.Base(filepath.Dir(file)), PID: state.PID, State: file}, store, nil
}

// readNames adds the names of a store's containers, by their IDs.
func readNames(store string, known map[string][]string) error {
	var errs []error
	for _, name := range lists {
		var list []struct {
			ID    string   `json:"id"`
			Names []string `json:"names"`
		}
		if err := readJSON(filepath.Join(store, name), &list); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, c := range list {
			known[c.ID] = append(known[c.ID], c.Names...)
		}
	}
	return errors.Join(errs...)
}

// maxSize bounds a file, in bytes. The state of runc has the whole configuration, the
// list of names has all containers of the machine.
const maxSize = 16 << 20

// readJSON reads a file that only root can have written.
func readJSON(name string, value any) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("container state: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("container state %s: %w", name, os.NewSyscallError("fstat", err))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != 0 || st.Mode&0o022 != 0 {
		return fmt.Errorf("container state %s: not a file that only root can write (owner %d, mode %#o)", name, st.Uid, st.Mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return fmt.Errorf("container state: %w", err)
	}
	if len(data) > maxSize {
		return fmt.Errorf("container state %s: longer than %d bytes", name, maxSize)
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("container state %s: %w", name, err)
	}
	return nil
}

// ErrNotFound means that no running container has the name.
var ErrNotFound = errors.New("no running container of podman, CRI-O, containerd, Docker, runc or crun has this name or ID")

// idLength is the length of the IDs that engines make, in hexadecimal digits. Their
// first digits name them, too.
const idLength = 64

// Find picks the container with the name or ID. If there are several, the error lists
// them.
func Find(list []Container, word string) (Container, error) {
	var found, begin []Container
	for _, c := range list {
		switch {
		case c.ID == word || slices.Contains(c.Names, word):
			found = append(found, c)
		case word != "" && len(c.ID) == idLength && strings.HasPrefix(c.ID, word):
			begin = append(begin, c)
		}
	}
	if len(found) == 0 {
		found = begin
	}
	switch len(found) {
	case 0:
		return Container{}, fmt.Errorf("%q: %w", word, ErrNotFound)
	case 1:
		return found[0], nil
	}
	var choices []string
	for _, c := range found {
		choices = append(choices, "\n  "+c.String())
	}
	return Container{}, fmt.Errorf("%q: several containers are called so; give the process or the ID of one:%s", word, strings.Join(choices, ""))
}

// HasAutofs reports whether the container's first process sees an autofs mount. A
// container that has ended has none.
func (c Container) HasAutofs() bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/mountinfo")
	return err == nil && strings.Contains(string(data), " - autofs ")
}
