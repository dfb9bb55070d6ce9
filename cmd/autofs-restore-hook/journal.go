package main

import (
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// journal is a socket to the host's journald: every line of the log goes there
// too. It is not go-systemd's: that waits when the journal's queue is full, which
// may be for ever, and CRIU waits for us.
type journal struct {
	socket int // -1 if there is no journal
	// container is what the engine calls the container, "" as long as that is unknown.
	container string
}

// journalSocket is where journald listens (systemd-journald.service(8)).
const journalSocket = "/run/systemd/journal/socket"

// dialJournal connects to the journal, if there is one. It must be done before a
// thread enters a container, which may have a socket of that name, too.
func dialJournal() *journal {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return &journal{socket: -1}
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: journalSocket}); err != nil {
		unix.Close(fd)
		return &journal{socket: -1}
	}
	return &journal{socket: fd}
}

// Levels is for logrus.
func (*journal) Levels() []logrus.Level { return logrus.AllLevels }

// Priorities of syslog(3).
const (
	priorityError   = "3"
	priorityWarning = "4"
	priorityInfo    = "6"
)

// printable is a text with all characters quoted that are not printable, as in Go's
// syntax: an error may hold names that a container has chosen, and a newline in them
// would make a line of its own in "journalctl -o cat" and in what reads the journal
// on. Standard error has its quotes from logrus.
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
func (j *journal) Fire(entry *logrus.Entry) error {
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
	if j.container != "" {
		// The field that podman and Docker use. Not CONTAINER_ID_FULL: "podman logs"
		// would show the line as one of the container's own.
		fields = append(fields, [2]string{"CONTAINER_NAME", printable(j.container)})
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
