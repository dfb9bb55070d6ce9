package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxState is the longest container state on standard input, in bytes. A state is a few
// kilobytes long; annotations can make it longer.
const maxState = 1 << 20

// stages are the hooks of the OCI runtime specification (config.md, POSIX-platform
// Hooks).
var stages = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// IsStage reports whether a word is the name of an OCI hook.
func IsStage(word string) bool { return slices.Contains(stages, word) }

// ReadState reads the container state that an OCI runtime gives its hooks.
func ReadState(r io.Reader) (*specs.State, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxState+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("container state on standard input: %w", err)
	case len(data) == 0:
		return nil, errors.New("container state on standard input: it is empty; an OCI runtime writes the state as JSON there")
	case len(data) > maxState:
		return nil, fmt.Errorf("container state on standard input: longer than %d bytes", maxState)
	}
	var state specs.State
	if err := json.Unmarshal(data, &state); err != nil {
		return nil, fmt.Errorf("container state on standard input: not the JSON that the OCI runtime specification describes: %w", err)
	}
	return &state, nil
}

// StageEvent returns the event of an OCI hook. ok is false if there is nothing to do: at
// every hook but createRuntime and poststart, and at a fresh start (doc.go).
func StageEvent(hookStage string, state *specs.State) (e Event, ok bool, err error) {
	if hookStage == "createRuntime" && isRestore(state) {
		return Event{Trigger: "oci:" + hookStage, Stage: stage.Prepare, PID: state.Pid, ContainerID: state.ID, LeaveWatcher: true}, true, nil
	}
	if hookStage != "poststart" {
		return Event{}, false, nil
	}
	if state.Pid <= 0 {
		return Event{}, false, fmt.Errorf("container state of %q: pid %d: want the number of the container's first process", state.ID, state.Pid)
	}
	if isFreshStart(os.Getppid()) {
		return Event{}, false, nil
	}
	return Event{Trigger: "oci:" + hookStage, Stage: stage.Repair, PID: state.Pid, ContainerID: state.ID, Strategy: container.Auto}, true, nil
}

// isFreshStart reports whether the process that called the hook is a runtime that
// creates or starts a container, by its command line. The container has no influence on
// that.
func isFreshStart(parent int) bool {
	words := commandLine(parent)
	if len(words) == 0 || !isRuntime(words[0]) {
		return false
	}
	for _, word := range words[1:] {
		switch word {
		case "create", "start", "run":
			return true
		case "restore":
			return false
		}
	}
	return false
}

func isRuntime(program string) bool {
	name := path.Base(program)
	return name == "runc" || name == "crun" || name == "youki" || strings.HasPrefix(name, "runc:")
}

// commandLine reads a process's arguments; nil if it cannot be read.
func commandLine(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}
