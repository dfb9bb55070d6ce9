package main

import (
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/writer"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

// logger writes to standard error, which is CRIU's log for an action script,
// and to the journal where there is one: CRIU's log is deleted by podman, CRI-O
// and containerd after a successful restore.
type logger struct {
	*logrus.Logger
	// progress gets the lines about the start and the result of a run. A command prints its
	// result on standard output; its lines go to the journal only and, with --json, errors
	// to standard error, too.
	progress *logrus.Logger
	journal  *journald
}

func newLogger() *logger {
	l := &logger{Logger: newFormatted(), journal: dialJournal()}
	l.SetOutput(os.Stderr)
	l.AddHook(l.journal)
	l.progress = l.Logger
	return l
}

func newCommandLogger(asJSON bool) *logger {
	l := newLogger()
	l.progress = newFormatted()
	l.progress.SetOutput(io.Discard)
	l.progress.AddHook(l.journal)
	if asJSON {
		l.progress.AddHook(&writer.Hook{Writer: os.Stderr, LogLevels: []logrus.Level{logrus.ErrorLevel}})
	}
	return l
}

// newFormatted quotes names from the container: they cannot forge a line of the log.
func newFormatted() *logrus.Logger {
	l := logrus.New()
	l.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true})
	return l
}

// named adds a container's name to the lines that follow.
func (l *logger) named(container string) { l.journal.container.Store(container) }

func (l *logger) start(e hook.Event) {
	of := ""
	if e.PID > 0 {
		of = fmt.Sprintf(" of process %d", e.PID)
	}
	l.progress.Infof("autofs-restore-hook %s: %s%s", versionNumber, e.Trigger, of)
}

// maxLines bounds the lines of a log about the same kind of trouble: a container
// may have any number of mounts and processes.
const maxLines = 50

func (l *logger) end(e hook.Event, rep *report.Report, err error) {
	if rep == nil {
		if err != nil {
			l.progress.Errorf("%s: %v", e.Trigger, err)
			return
		}
		l.progress.Infof("%s: done", e.Trigger)
		return
	}
	l.named(rep.Container)
	if rep.Outcome == report.Repaired || rep.Outcome == report.NothingToDo {
		l.progress.Info(rep.Summary())
		return
	}
	l.progress.Error(rep.Summary())
	unrepaired := rep.Unrepaired()
	for _, u := range unrepaired[:min(len(unrepaired), maxLines)] {
		l.progress.Errorf("unrepaired: %s: %s", u.Listed(), u.Reason)
	}
	for _, w := range rep.Waiting[:min(len(rep.Waiting), maxLines)] {
		l.progress.Errorf("process %d (%q) waits on an automount at %q", w.PID, w.Command, w.Path)
	}
	if len(unrepaired) > maxLines || len(rep.Waiting) > maxLines {
		l.progress.Error("there are more: see the report")
	}
}
