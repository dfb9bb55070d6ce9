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

// Event says which process is being restored, at which moment, and what called us.
type Event struct {
	// Trigger names the caller, for the report: "criu:post-resume",
	// "oci:poststart", "command:repair".
	Trigger string
	Stage   stage.Name
	// PID is the container's first process in our pid namespace; 0 if it does
	// not exist yet.
	PID int
	// ContainerID is what the engine calls the container; "" if it did not say.
	ContainerID string
	// CRIU is the process that restores, 0 if unknown.
	CRIU int
	// ImageDir is the directory of the checkpoint images, "" at Repair.
	ImageDir string
	// Strategy limits the cures that are tried.
	Strategy container.Strategy
	// Everyone makes the snapshot look at every process on the host, and so
	// find those that entered the container from outside.
	Everyone bool
	// KillWaiters permits to end processes that wait on a mount from which none
	// can be released.
	KillWaiters bool
	// Watch is whether to wait for the end of the restore first; the start times
	// are those of CRIU and of the first process.
	Watch                bool
	criuStart, initStart uint64
}

// unlessHost leaves out the error that the restored process is in the host's own
// mount namespace: what is restored there, as jobs and Java programs are, has no
// mounts of its own. A person who names such a process is told.
func (e Event) unlessHost(err error) error {
	if errors.Is(err, nsenter.ErrOwnNamespace) && !strings.HasPrefix(e.Trigger, "command:") {
		return nil
	}
	return err
}

// Environment variables with which CRIU calls an action script (criu/action-scripts.c).
const (
	EnvAction   = "CRTOOLS_SCRIPT_ACTION" // CRIU's stage
	EnvImageDir = "CRTOOLS_IMAGE_DIR"
	EnvInitPID  = "CRTOOLS_INIT_PID"
)

// stageOf maps the stages of a CRIU restore at which there is work.
var stageOf = map[string]stage.Name{
	"pre-restore":           stage.Reserve,
	"post-setup-namespaces": stage.Prepare,
	"pre-resume":            stage.Preserve,
	"post-resume":           stage.Repair,
}

// IsAction reports whether there is work at a stage of CRIU.
func IsAction(action string) bool { return stageOf[action] != "" }

// criuOf finds the restoring process. Its environment names its image directory as
// /proc/CRIU/fd/N, at every stage: a script between us and it may call
// ours without exec. Without that it is our parent (criu/action-scripts.c, cr_system).
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
	moment, ours := stageOf[action]
	if !ours {
		return Event{}, fmt.Errorf("%s=%q: nothing is done at this stage", EnvAction, action)
	}
	pid, err := strconv.Atoi(getenv(EnvInitPID))
	if moment == stage.Reserve {
		pid = 0 // no restored process exists yet
	} else if err != nil || pid <= 0 {
		return Event{}, fmt.Errorf("%s=%q at %s: want the number of the restored container's first process", EnvInitPID, getenv(EnvInitPID), action)
	}
	e := Event{
		Trigger: "criu:" + action,
		Stage:   moment,
		PID:     pid,
		CRIU:    criuOf(getenv(EnvImageDir)),
	}
	if moment != stage.Repair {
		e.ImageDir = getenv(EnvImageDir) // closed by CRIU before post-resume
	}
	return e, nil
}
