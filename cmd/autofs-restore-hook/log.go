package main

import (
	"fmt"
	"os"

	"github.com/sirupsen/logrus"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

// logger writes to standard error, which is CRIU's log for an action script,
// and to the journal where there is one: CRIU's log is deleted by podman, CRI-O
// and containerd after a successful restore.
type logger struct{ *logrus.Logger }

func newLogger() *logger {
	l := logrus.New()
	l.SetOutput(os.Stderr)
	// Names from the container are quoted by this formatter: they cannot forge
	// a line of the log.
	l.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true})
	if j := dialJournal(); j >= 0 {
		l.AddHook(j)
	}
	return &logger{l}
}

func (l *logger) start(e hook.Event) {
	of := ""
	if e.PID > 0 {
		of = fmt.Sprintf(" of process %d", e.PID)
	}
	l.Infof("autofs-restore-hook %s: %s%s", versionNumber, e.Trigger, of)
}

// maxLines bounds the lines of a log about the same kind of trouble: a container
// may have any number of mounts and processes.
const maxLines = 50

func (l *logger) end(e hook.Event, report *hook.Report, err error) {
	switch {
	case report != nil && report.Outcome != hook.Repaired && report.Outcome != hook.NothingToDo:
		l.Error(report.Summary())
		unrepaired := report.Unrepaired()
		for _, u := range unrepaired[:min(len(unrepaired), maxLines)] {
			l.Errorf("unrepaired: %s: %s", u.Listed(), u.Reason)
		}
		for _, w := range report.Waiting[:min(len(report.Waiting), maxLines)] {
			l.Errorf("process %d (%q) waits on an automount at %q", w.PID, w.Command, w.Path)
		}
		if len(unrepaired) > maxLines || len(report.Waiting) > maxLines {
			l.Error("there are more: see the report")
		}
	case report != nil:
		l.Info(report.Summary())
	case err != nil:
		l.Errorf("%s: %v", e.Trigger, err)
	default:
		l.Infof("%s: done", e.Trigger)
	}
}
