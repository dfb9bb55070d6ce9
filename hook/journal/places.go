package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

const (
	// placeTime is how long a restore keeps its place: a restore that takes longer waits
	// for its disk or for something else, not for the processor.
	placeTime = time.Second
	// QueueTime is how long a restore waits for a place, enough for about 150 on two
	// processors. No process of its container exists meanwhile.
	QueueTime = 30 * time.Second
	// placeInterval is the pause between two polls of the first one in the queue.
	placeInterval = 2 * time.Millisecond
)

// TakePlace waits until fewer than count restores of the machine are in progress, and adds
// that of the given CRIU process to them. Waiting restores proceed in the order of their
// calls: the first one polls, the others wait for its flock(2). A place is a file; it ends
// with [Store.LeavePlace], with the process, and after 1 s, so that no restore can block
// others. TakePlace fails after [QueueTime].
func (s Store) TakePlace(ctx context.Context, criu *nsenter.Process, count int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, QueueTime, fmt.Errorf("other restores were in progress for %s", QueueTime))
	defer cancel()
	turn, first, err := s.tryLockFolder(placesFolder)
	if err == nil && !first {
		turn, err = awaitTurn(ctx, criu, turn)
	}
	if err != nil {
		return fmt.Errorf("wait for other restores: %w", err)
	}
	defer turn.Close()
	for s.placesTaken() >= count {
		select {
		case <-time.After(placeInterval):
		case <-ctx.Done():
			return fmt.Errorf("wait for other restores: %w", context.Cause(ctx))
		}
		if criu.Ended() {
			return fmt.Errorf("wait for other restores: %w", errEnded)
		}
	}
	return writeFile(filepath.Join(s.dir, placesFolder), criu.Identity(), nil)
}

var errEnded = errors.New("the restoring process has ended")

// awaitTurn waits behind other restores for the lock of a file, which it closes if the CRIU
// process or ctx ends.
func awaitTurn(ctx context.Context, criu *nsenter.Process, turn *os.File) (*os.File, error) {
	watched, err := nsenter.Open(criu.PID()) // not criu: it may be closed before the wait ends
	if err != nil {
		turn.Close()
		return nil, err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		defer watched.Close()
		if watched.WaitEnd(ctx) == nil {
			end(errEnded)
		}
	}()
	return awaitFlock(ctx, turn)
}

// LeavePlace gives the place of a restore to the next one.
func (s Store) LeavePlace(criu *nsenter.Process) {
	_ = os.Remove(filepath.Join(s.dir, placesFolder, criu.Identity())) // it may have none
}

// placesTaken counts the restores in progress.
func (s Store) placesTaken() int {
	entries, _ := os.ReadDir(filepath.Join(s.dir, placesFolder))
	taken := 0
	for _, e := range entries {
		pid, start, err := nsenter.ParseIdentity(e.Name())
		if err != nil {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		if age := time.Since(info.ModTime()); age < 0 || age > placeTime {
			continue
		}
		p, err := nsenter.OpenIdentity(pid, start)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			p.Close()
		}
		taken++
	}
	return taken
}
