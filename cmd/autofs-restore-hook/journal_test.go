package main

import (
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// TestJournal: a journal that takes no more does not stop the program.
func TestJournal(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	j := &journald{socket: pair[0]}
	j.container.Store("web\n1")
	entry := &logrus.Entry{Level: logrus.WarnLevel, Message: "zwei\nZeilen: \"ä\" \x1b[2J\u2028\xff"}
	if err := j.Fire(entry); err != nil {
		t.Error(err)
	}
	b := make([]byte, 4096)
	n, err := unix.Read(pair[1], b)
	want := "MESSAGE\n\x23\x00\x00\x00\x00\x00\x00\x00" + `zwei\nZeilen: "ä" \x1b[2J\u2028` + "\uFFFD\n" +
		"PRIORITY\n\x01\x00\x00\x00\x00\x00\x00\x004\n" +
		"SYSLOG_IDENTIFIER\n\x13\x00\x00\x00\x00\x00\x00\x00autofs-restore-hook\n" +
		"CONTAINER_NAME\n\x06\x00\x00\x00\x00\x00\x00\x00web\\n1\n"
	if err != nil || string(b[:n]) != want {
		t.Errorf("%q, %v, want %q", b[:max(n, 0)], err, want)
	}
	done := make(chan struct{})
	go func() {
		for range 10_000 {
			_ = j.Fire(entry)
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("it waits for a reader")
	}
}
