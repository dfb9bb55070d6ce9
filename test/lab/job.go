package lab

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Job is a process of the node without own namespaces, for CRIU without an engine.
type Job struct {
	PID    int
	images string
}

// StartJob starts a process and checkpoints it into a folder.
func StartJob(t testing.TB, dir string) *Job {
	t.Helper()
	// The tests' open files may be outside the node.
	cmd := command("bash", "-c", `for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || eval "exec $fd>&-"; done; exec sleep 1000`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(AnswerLimit); !strings.HasPrefix(commandLine(cmd.Process.Pid), "sleep"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the job does not start")
		}
	}
	j := &Job{PID: cmd.Process.Pid, images: filepath.Join(dir, "images")}
	if err := os.MkdirAll(j.images, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := output("criu", "dump", "--images-dir", j.images, "--tree", strconv.Itoa(j.PID), "--log-file", "dump.log", "-v4")
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // its number is free
	if err != nil {
		t.Fatalf("%v\n%s", err, errorLines(filepath.Join(j.images, "dump.log")))
	}
	return j
}

// Restore restores it; it ends with the test.
func (j *Job) Restore(t testing.TB) {
	t.Helper()
	file := filepath.Join(j.images, "pid")
	_, err := output("criu", "restore", "--restore-detached", "--images-dir", j.images, "--pidfile", file, "--log-file", "restore.log", "-v4")
	if err != nil {
		t.Fatalf("%v\n%s", err, errorLines(filepath.Join(j.images, "restore.log")))
	}
	text, err := os.ReadFile(file)
	if err == nil {
		j.PID, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(j.PID, syscall.SIGKILL) })
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return string(text)
}
