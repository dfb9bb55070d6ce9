package restores

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/host"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

const (
	suffix = ".json"
	// maxSize bounds a report, in bytes: paths of the container are in it.
	maxSize = 4 << 20
	// maxName bounds a container's name in a file name, in bytes (hook.maxID).
	maxName = 200
)

// reports is the folder of the reports that autofs-restore-hook leaves on the
// host, called by CRIU, a runtime, a person or this agent: one file for each
// container.
type reports string

// written is a report with the time it was written.
type written struct {
	*report.Report
	at time.Time
}

// read reads the report about a container; fs.ErrNotExist if there is none.
func (d reports) read(container string) (*written, error) {
	if !plain(container) {
		return nil, fmt.Errorf("report about container %q: not a name of a file", container)
	}
	f, err := os.OpenFile(filepath.Join(string(d), container+suffix), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("report %q: longer than %d bytes", f.Name(), maxSize)
	}
	r, err := host.ParseReport(data)
	if err != nil {
		return nil, fmt.Errorf("report %q: %w", f.Name(), err)
	}
	return &written{Report: r, at: info.ModTime()}, nil
}

// isAbout reports whether the report is about this process: its number is the
// same, and it was written after the process was made. A report about an earlier
// process of the same container and number would be older.
func (r *written) isAbout(p *nsenter.Process) bool {
	return r.PID == p.PID() && !r.at.Before(madeAt(p))
}

// madeAt is when the kernel made a process, at most a tick too early.
func madeAt(p *nsenter.Process) time.Time {
	const tick = time.Second / 100 // USER_HZ
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}
	}
	age := time.Duration(now.Nano()) - time.Duration(p.StartTime())*tick
	return time.Now().Add(-age - tick)
}

// containers lists the containers that have a report.
func (d reports) containers() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fmt.Errorf("reports: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && plain(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// watch calls found with the container of every report that is there and of
// every one that is written, until ctx ends, and ready once it watches. found
// may be called more than once for a report.
func (d reports) watch(ctx context.Context, ready func(), found func(container string)) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil { //nolint:forbidigo // the host's own /run
		return fmt.Errorf("reports: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch reports: %w", err)
	}
	defer w.Close()
	if err := w.Add(string(d)); err != nil {
		return fmt.Errorf("watch reports: %w", err)
	}
	// What was written before the watch began.
	if err := d.each(found); err != nil {
		return err
	}
	ready()
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("watch reports: the watch ended")
			}
			// A report appears by a rename, which shows as a new file.
			if name, is := strings.CutSuffix(filepath.Base(e.Name), suffix); is && e.Has(fsnotify.Create) && plain(name) {
				found(name)
			}
			if e.Name == string(d) && (e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)) {
				return fmt.Errorf("watch reports: %s was removed", string(d))
			}
		case err, ok := <-w.Errors:
			if !ok {
				return errors.New("watch reports: the watch ended")
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch reports: %w", err)
			}
			if err := d.each(found); err != nil { // the queue of events overflowed
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d reports) each(found func(string)) error {
	names, err := d.containers()
	for _, name := range names {
		found(name)
	}
	return err
}

func plain(name string) bool {
	return name != "" && len(name) <= maxName && name[0] != '.' && !strings.ContainsAny(name, "/\x00")
}
