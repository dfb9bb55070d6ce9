package anondev

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestTooHigh: a number that costs too many placeholders is refused, and they go.
func TestTooHigh(t *testing.T) {
	testenv.RequireRoot(t)
	before := next(t)
	p := New([]uint64{unix.Mkdev(0, 1<<20-1)})
	err := p.Fill(context.Background())
	if err == nil || len(p.others) != maxPlaceholders {
		t.Errorf("%v with %d placeholders", err, len(p.others))
	}
	p.Close()
	testenv.Eventually(t, "the numbers are free again", func() bool { return unix.Minor(next(t)) <= unix.Minor(before)+distance })
}

// TestClosed: what the pool held is free, and the lowest number as before.
func TestClosed(t *testing.T) {
	p, wanted := reserve(t, 3)
	p.Close()
	p.Close()
	again := New(wanted)
	defer again.Close()
	testenv.Eventually(t, "the numbers are free again", func() bool {
		again.Trim()
		if err := again.Fill(context.Background()); err != nil {
			t.Fatal(err)
		}
		again.Trim()
		return len(again.Placeholders()) == len(wanted)
	})
}
