// Command autofs-restore-hook makes automounts work again in a container that
// CRIU has restored. It is an OCI hook, a CRIU action script and a command line
// tool; its arguments and environment say which.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/fdstore"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/remover"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/helper/spawn"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

// Exit statuses of the commands. As hook and action script the program ends with
// exitDone: a failed repair must not fail the restore.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitPartly = 3 // some mounts are repaired, others not
)

// The main goroutine keeps the main thread for itself: a goroutine that enters a
// container takes its thread with it, and /proc/self shows the main one.
func init() { runtime.LockOSThread() }

func main() {
	if action := os.Getenv(hook.EnvAction); action != "" && len(os.Args) == 1 {
		if !hook.IsAction(action) {
			return // CRIU calls at every stage of every dump and restore
		}
		os.Exit(actionScript())
	}
	os.Exit(dispatch(os.Args[1:]))
}

// dispatch runs what the first argument names: a helper process, an OCI hook or a
// command.
func dispatch(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage())
		return exitUsage
	}
	switch name := args[0]; {
	case name == fdstore.Verb:
		return runHelper(fdstore.Run, args[1:])
	case name == remover.Verb:
		return runHelper(remover.Run, args[1:])
	case name == hook.WatchVerb:
		return watch(args[1:])
	case hook.IsStage(name):
		return ociHook(name)
	case name == listVerb:
		return listContainers()
	case name == "help":
		return help(args[1:])
	case name == "--help", name == "-h":
		return help(nil)
	case name == "--version", name == "-V":
		return find("version").start(args[1:])
	default:
		if c := find(name); c != nil {
			return c.start(args[1:])
		}
		return unknown(name)
	}
}

// runHelper runs a helper process, which has no log.
func runHelper(run func([]string) error, args []string) int {
	_ = spawn.SetUndumpable() // its work does not depend on it
	if err := run(args); err != nil {
		return exitFailed
	}
	return exitDone
}

// protectProcess keeps a container's processes from reading this one, before any of
// them can reach it: see package spawn. A failure does not stop the work.
func protectProcess(log *logger) {
	if err := spawn.SetUndumpable(); err != nil {
		log.Warn(err)
	}
}

// sealed is for the field Protect of hook.Runner: the program executes a copy of
// itself, with the input on standard input.
func sealed(input []byte) func(pid int) error {
	return func(pid int) error { return spawn.Seal(pid, input) }
}

// actionScript handles a call by CRIU.
func actionScript() int {
	log := newLogger()
	event, err := hook.ActionEvent(os.Getenv)
	if err != nil {
		log.Error(err)
		return log.exitStatus(exitFailed)
	}
	protectProcess(log)
	return log.exitStatus(run(log, event, nil).Outcome.ExitStatus())
}

// ociHook handles a call by an OCI runtime.
func ociHook(name string) int {
	log := newLogger()
	log.limit(name, hook.Deadline)
	state, err := hook.ReadState(os.Stdin)
	if err != nil {
		log.Errorf("%s: %v", name, err)
		return log.exitStatus(exitUsage)
	}
	event, ours, err := hook.StageEvent(name, state)
	if err != nil {
		log.Errorf("%s: %v", name, err)
		return log.exitStatus(exitUsage)
	}
	if !ours {
		return exitDone
	}
	input, err := json.Marshal(state)
	if err != nil {
		log.Warn(err)
	}
	protectProcess(log)
	return log.exitStatus(run(log, event, input).Outcome.ExitStatus())
}

// watch is the program as the process that a createRuntime hook leaves behind.
func watch(args []string) int {
	log := newLogger()
	event, err := hook.WatchEvent(args)
	if err != nil {
		log.Error(err)
		return exitUsage
	}
	// An exec later would lose the inherited state.
	if err := spawn.Seal(event.PID, nil); err != nil {
		log.Warn(err)
	}
	protectProcess(log)
	run(log, event, nil)
	return exitDone
}

// unknown handles a word that is no command. A newer runtime may have hook stages that
// this version does not know: they must not stop a container.
func unknown(word string) int {
	fail := func() int {
		fmt.Fprintf(os.Stderr, "%s: unknown command %q\nSee \"%s --help\".\n", programName, word, programName)
		return exitUsage
	}
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice == 0 {
		time.AfterFunc(stateTime, func() { os.Exit(fail()) })
		if state, err := hook.ReadState(os.Stdin); err == nil && state.Version != "" {
			newLogger().Warnf("%q: an OCI hook stage that this version does not know; nothing is done", word)
			return exitDone
		}
	}
	return fail()
}

// run handles an event, with one line in the log at the start and one at the end.
// input is the text that was read from standard input.
func run(log *logger, event hook.Event, input []byte) *report.Report {
	if !event.Watch {
		// It starts before anything is logged. The output of a command does not count.
		defer log.limit(event.Trigger, event.Limit()).Stop()
	}
	log.named(event.ContainerID)
	if event.Watch || !spawn.Sealed() {
		log.start(event)
	}
	config, err := hook.ReadConfig(hook.ConfigFile)
	if err != nil {
		log.Error(err)
	}
	runner := hook.Runner{
		Version:   versionNumber,
		Directory: journal.Directory, Config: config, Warn: func(err error) { log.Warn(err) },
		Note: func(text string) { log.Info(text) }, Named: log.named, Protect: sealed(input),
		Restored: func() { log.limit(event.Trigger, hook.Deadline) },
	}
	rep, err := runner.Run(context.Background(), event)
	log.end(event, rep, err)
	switch {
	case rep != nil:
		return rep
	case err != nil:
		return &report.Report{Outcome: report.Failed, Error: err.Error()}
	}
	return &report.Report{Outcome: report.NothingToDo}
}

// stateTime is how long a runtime may take to write a container's state.
const stateTime = time.Second

// lastWords is how long the program may take to log that its time is over.
const lastWords = 100 * time.Millisecond

// limit ends the program soon after its deadline, also when its threads are blocked in
// the kernel. The time before the execution of a sealed copy counts.
func (l *logger) limit(what string, deadline time.Duration) *time.Timer {
	return time.AfterFunc(deadline+time.Second/4-spawn.Took(), func() {
		status := exitFailed
		if config, _ := hook.ReadConfig(hook.ConfigFile); !config.Strict && !strings.HasPrefix(what, "command:") {
			status = exitDone
		}
		// The reader of the log may be the reason for the delay.
		time.AfterFunc(lastWords, func() { os.Exit(status) })
		l.Errorf("%s: not finished within %s, given up", what, deadline)
		os.Exit(status)
	})
}

// exitStatus is the exit status of a hook or action script: 0, unless the configuration
// says strict.
func (l *logger) exitStatus(status int) int {
	if status == exitDone {
		return exitDone
	}
	config, err := hook.ReadConfig(hook.ConfigFile)
	if err != nil {
		l.Error(err)
	}
	if config.Strict {
		return status
	}
	return exitDone
}
