package hook

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Event is a call of the program: the container, the stage of its restore and the
// caller.
type Event struct {
	// Trigger names the caller, for the report: "criu:post-resume",
	// "oci:poststart", "command:repair".
	Trigger string
	Stage   stage.Name
	// PID is the container's first process in the pid namespace of this program; 0 if
	// it does not exist yet.
	PID int
	// ContainerID is the engine's name for the container; "" if unknown.
	ContainerID string
	// CRIU is the pid of the restoring process, 0 if unknown.
	CRIU int
	// ImageDir is the directory of the checkpoint images, "" at Repair.
	ImageDir string
	// Strategy limits the cures that are tried.
	Strategy container.Strategy
	// Visitors includes processes that entered the container from outside, as "runc
	// exec" does. It makes the snapshot read every process of the host.
	Visitors bool
	// KillWaiters allows the repair to kill waiters that cannot be released.
	KillWaiters bool
	// LeaveWatcher makes Prepare leave a process behind that repairs the container after
	// the restore: for createRuntime, where no action script is called.
	LeaveWatcher bool
	// Watch makes Repair wait for the end of the restore first: the run is that process.
	Watch bool
	// criuStart and initStart are the start times of CRIU and PID, if Watch is set.
	criuStart, initStart uint64
}

// unlessHost drops the error that the restored process is in the host's own mount
// namespace: CRIU also restores jobs and Java programs there, which have no mounts of
// their own. The error stays for a command, whose user named the process.
func (e Event) unlessHost(err error) error {
	if errors.Is(err, nsenter.ErrOwnNamespace) && !strings.HasPrefix(e.Trigger, "command:") {
		return nil
	}
	return err
}

// Environment variables with which CRIU calls an action script (criu/action-scripts.c).
const (
	EnvAction   = "CRTOOLS_SCRIPT_ACTION" // CRIU's stage
	envImageDir = "CRTOOLS_IMAGE_DIR"
	envInitPID  = "CRTOOLS_INIT_PID"
)

// stageOf maps CRIU's stages to those of this program.
var stageOf = map[string]stage.Name{
	"pre-restore":           stage.Reserve,
	"post-setup-namespaces": stage.Prepare,
	"pre-resume":            stage.Preserve,
	"post-resume":           stage.Repair,
}

// IsAction reports whether there is work at a stage of CRIU.
func IsAction(action string) bool { return stageOf[action] != "" }

// criuOf returns the pid of the restoring process. At every stage CRIU passes its image
// directory as /proc/CRIU/fd/N, also through a script that calls this program without
// exec. Without that path it is the parent process (criu/action-scripts.c, cr_system).
func criuOf(imageDir string) int {
	if rest, found := strings.CutPrefix(imageDir, "/proc/"); found {
		number, rest, _ := strings.Cut(rest, "/")
		pid, err := strconv.Atoi(number)
		if _, dirErr := os.Stat("/proc/" + number); err == nil && pid > 0 && strings.HasPrefix(rest, "fd/") && dirErr == nil {
			return pid
		}
	}
	return os.Getppid()
}

// ActionEvent reads the event from the environment of a CRIU action script.
func ActionEvent(getenv func(string) string) (Event, error) {
	action := getenv(EnvAction)
	name, ours := stageOf[action]
	if !ours {
		return Event{}, fmt.Errorf("%s=%q: nothing is done at this stage", EnvAction, action)
	}
	pid, err := strconv.Atoi(getenv(envInitPID))
	if name == stage.Reserve {
		pid = 0 // no restored process exists yet
	} else if err != nil || pid <= 0 {
		return Event{}, fmt.Errorf("%s=%q at %s: want the number of the restored container's first process", envInitPID, getenv(envInitPID), action)
	}
	e := Event{
		Trigger: "criu:" + action,
		Stage:   name,
		PID:     pid,
		CRIU:    criuOf(getenv(envImageDir)),
	}
	if name != stage.Repair {
		e.ImageDir = getenv(envImageDir) // closed by CRIU before post-resume
	}
	return e, nil
}
