package journal

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testproc"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// TestPlaces: a restore waits while two are in progress, until one of them leaves, ends,
// or has had its place for too long.
func TestPlaces(t *testing.T) {
	for name, free := range map[string]func(s Store, c *testenv.Child, path string) error{
		"left":    func(s Store, c *testenv.Child, _ string) error { s.LeavePlace(testproc.Open(t, c)); return nil },
		"ended":   func(_ Store, c *testenv.Child, _ string) error { c.End(); return nil },
		"expired": func(_ Store, _ *testenv.Child, path string) error { return age(path, placeTime) },
		"future":  func(_ Store, _ *testenv.Child, path string) error { return age(path, -time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(t.TempDir())
			first := testenv.Start(t, nil)
			p := testproc.Open(t, first)
			second, third := testproc.Open(t, testenv.Start(t, nil)), testproc.Open(t, testenv.Start(t, nil))
			ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
			defer cancel()
			for _, restore := range []*nsenter.Process{p, second} {
				if err := s.TakePlace(ctx, restore, 2); err != nil {
					t.Fatal(err)
				}
			}
			short, cancelShort := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancelShort()
			if s.TakePlace(short, third, 2) == nil {
				t.Fatal("three restores have two places")
			}
			if err := free(s, first, filepath.Join(s.dir, placesFolder, p.Identity())); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := s.TakePlace(ctx, third, 2); err != nil || time.Since(begin) > placeTime/2 {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
	}
}

// age makes a file older.
func age(path string, by time.Duration) error {
	at := time.Now().Add(-by)
	return os.Chtimes(path, at, at)
}

// TestPlaceOfEnded: a restore that waits for a place, as the first one or behind another,
// gives up when its process ends.
func TestPlaceOfEnded(t *testing.T) {
	for name, behind := range map[string]bool{"first": false, "behind another": true} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(t.TempDir())
			if behind {
				turn, err := s.lockFolder(t.Context(), placesFolder)
				if err != nil {
					t.Fatal(err)
				}
				defer turn.Close()
			}
			child := testenv.Start(t, nil)
			criu := testproc.Open(t, child)
			result := make(chan error, 1)
			go func() { result <- s.TakePlace(t.Context(), criu, 0) }()
			child.End()
			if err := <-result; err == nil || !criu.Ended() {
				t.Errorf("a place: %v", err)
			}
		})
	}
}
