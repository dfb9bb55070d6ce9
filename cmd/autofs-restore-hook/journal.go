package main

import (
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// journald is a connection to the host's journald. It is not that of go-systemd, which
// blocks while the journal's queue is full: CRIU waits for this program.
type journald struct {
	socket int // -1 if there is no journal
	// container is the container's name, a string, if it is known. Any goroutine may
	// write a line.
	container atomic.Value
}

// journalSocket is where journald listens (systemd-journald.service(8)).
const journalSocket = "/run/systemd/journal/socket"

// dialJournal connects to the journal, if there is one. It must be done before a
// thread enters a container, which may have a socket of that name, too.
func dialJournal() *journald {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return &journald{socket: -1}
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: journalSocket}); err != nil {
		unix.Close(fd)
		return &journald{socket: -1}
	}
	return &journald{socket: fd}
}

// Levels implements logrus.Hook.
func (*journald) Levels() []logrus.Level { return logrus.AllLevels }

// Priorities of syslog(3).
const (
	priorityError   = "3"
	priorityWarning = "4"
	priorityInfo    = "6"
)

// printable quotes the characters of a text that are not printable, as in Go's syntax:
// an error may hold names that a container has chosen, and a newline in them would
// start a line of its own in "journalctl -o cat" and in consumers of the journal.
// logrus quotes the lines on standard error.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if !strconv.IsPrint(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Fire sends a line, or drops it if the journal does not take it now.
func (j *journald) Fire(entry *logrus.Entry) error {
	if j.socket < 0 {
		return nil
	}
	priority := priorityInfo
	switch entry.Level {
	case logrus.ErrorLevel, logrus.FatalLevel, logrus.PanicLevel:
		priority = priorityError
	case logrus.WarnLevel:
		priority = priorityWarning
	default:
	}
	// Native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), with sizes: a value may
	// have any bytes.
	fields := [][2]string{{"MESSAGE", printable(entry.Message)}, {"PRIORITY", priority}, {"SYSLOG_IDENTIFIER", programName}}
	if name, _ := j.container.Load().(string); name != "" {
		// The field that podman and Docker use. Not CONTAINER_ID_FULL: "podman logs"
		// would show the line as one of the container's own.
		fields = append(fields, [2]string{"CONTAINER_NAME", printable(name)})
	}
	var record []byte
	for _, field := range fields {
		record = append(record, field[0]+"\n"...)
		for i := range 8 { // the size, 64 bits, the lowest first
			record = append(record, byte(uint64(len(field[1]))>>(8*i)))
		}
		record = append(record, field[1]+"\n"...)
	}
	_ = unix.Send(j.socket, record, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return nil
}
