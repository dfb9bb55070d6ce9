package hook

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

func TestWatchEvent(t *testing.T) {
	e, err := WatchEvent([]string{"10-20", "30-40", "c1"})
	want := Event{
		Trigger: "oci:createRuntime", Stage: stage.Repair, ContainerID: "c1", Strategy: container.Auto, Watch: true,
		CRIU: 10, criuStart: 20, PID: 30, initStart: 40,
	}
	if err != nil || e != want {
		t.Errorf("%+v, %v, want %+v", e, err, want)
	}
	for _, args := range [][]string{nil, {"1-2", "3-4"}, {"1-2", "3-4", "c1", "x"}, {"1", "3-4", "c1"}, {"1-2", "3", "c1"}, {"c1", "1-2", "3-4"}} {
		if e, err := WatchEvent(args); err == nil || e != (Event{}) || !strings.HasPrefix(err.Error(), WatchVerb+": ") {
			t.Errorf("%q: %+v, %v", args, e, err)
		}
	}
}

// TestWatch: a watcher does not take another process for CRIU or the first process, and
// a restore that failed is no error.
func TestWatch(t *testing.T) {
	limited := 0
	r := Runner{Directory: t.TempDir(), Warn: func(err error) { t.Error(err) }, Restored: func() { limited++ }}
	restoring, restored := testenv.Start(t, nil), testenv.Start(t, nil)
	criu, init := testproc.Open(t, restoring), testproc.Open(t, restored)
	event, err := WatchEvent([]string{criu.Identity(), init.Identity(), "c1"})
	if err != nil {
		t.Fatal(err)
	}
	limit := testenv.Patience
	expect := func(what string, e Event, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeoutCause(context.Background(), limit, errors.New("the test's time limit"))
		defer cancel()
		report, err := r.Run(ctx, e)
		if report != nil || (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want %q", what, report, err, want)
		}
	}
	other := event
	other.criuStart++
	expect("another CRIU", other, "another one has its number")
	other = event
	other.initStart++
	expect("another container", other, "another one has its number")
	limit = 50 * time.Millisecond
	expect("CRIU does not end", event, "the test's time limit")
	limit = testenv.Patience
	restored.End()
	expect("the container is gone", event, "no such process")

	// After a failed restore the first process is a zombie.
	failing := testenv.Start(t, nil)
	zombie := testproc.Open(t, failing)
	if event, err = WatchEvent([]string{criu.Identity(), zombie.Identity(), "c1"}); err != nil {
		t.Fatal(err)
	}
	_ = failing.Cmd.Process.Kill()
	testenv.Eventually(t, "the end of the container", zombie.Ended)
	_ = restoring.Cmd.Process.Kill()
	expect("the restore failed", event, "")
	if limited != 0 {
		t.Error("a repair began")
	}
	// The time of a repair is limited from its begin. This one is refused.
	self := testproc.Open(t, testenv.Start(t, nil))
	if event, err = WatchEvent([]string{criu.Identity(), self.Identity(), "c1"}); err != nil {
		t.Fatal(err)
	}
	_, _ = r.Run(t.Context(), event)
	if limited != 1 {
		t.Errorf("the time of a repair was limited %d times", limited)
	}
}

// TestRestoringProcess: a process without a tracer is not being restored.
func TestRestoringProcess(t *testing.T) {
	p := testproc.Open(t, testenv.Start(t, nil))
	if criu, err := restoringProcess(p); !errors.Is(err, fs.ErrNotExist) || criu != nil {
		t.Errorf("%v, %v", criu, err)
	}
}

// TestImageDirectory: the images are found among the open files of a process.
func TestImageDirectory(t *testing.T) {
	images, other := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(images, "inventory.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(list string) *nsenter.Process {
		t.Helper()
		c := testenv.StartCommand(t, nil, "sh", "-c", list+" exec cat", "sh", other, images)
		p := testproc.Open(t, c)
		testenv.Eventually(t, "a process with open directories", func() bool {
			comm, err := p.ReadFile("comm", 100)
			return err == nil && string(comm) == "cat\n"
		})
		return p
	}
	dir, err := imageDirectory(start(`exec 4<"$1" 7<"$2";`))
	if err != nil {
		t.Fatal(err)
	}
	if link, err := os.Readlink(dir); err != nil || link != images {
		t.Errorf("%s is %s, %v", dir, link, err)
	}
	if dir, err := imageDirectory(start(`exec 4<"$1";`)); !errors.Is(err, fs.ErrNotExist) || dir != "" {
		t.Errorf("without images: %q, %v", dir, err)
	}
}
