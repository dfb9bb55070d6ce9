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

// maxState bounds the container state on standard input, in bytes. States are
// a few kilobytes; annotations can make them longer.
const maxState = 1 << 20

// stages are the hooks of the OCI runtime specification (config.md, POSIX-platform
// Hooks).
var stages = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// IsStage reports whether a word is the name of an OCI hook stage.
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

// StageEvent tells what an OCI hook stage means for us. ok is false when there
// is nothing to do: at every stage but createRuntime and poststart, and where
// these belong to a fresh start. doc.go says how the two are told apart.
func StageEvent(hookStage string, state *specs.State) (e Event, ok bool, err error) {
	if hookStage == "createRuntime" && isRestore(state) {
		return Event{Trigger: "oci:" + hookStage, Stage: stage.Reserve, PID: state.Pid, ContainerID: state.ID}, true, nil
	}
	if hookStage != "poststart" {
		return Event{}, false, nil
	}
	if state.Pid <= 0 {
		return Event{}, false, fmt.Errorf("container state of %q: pid %d: want the number of the container's first process", state.ID, state.Pid)
	}
	if startedAfresh(os.Getppid()) {
		return Event{}, false, nil
	}
	return Event{Trigger: "oci:" + hookStage, Stage: stage.Repair, PID: state.Pid, ContainerID: state.ID, Strategy: container.Auto}, true, nil
}

// startedAfresh reports whether the process that called the hook is a runtime
// that is creating or starting a container: its own command line says so. The
// container has no influence on it.
func startedAfresh(parent int) bool {
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
