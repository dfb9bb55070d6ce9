package anondev

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// TestTooHigh: a number that costs too many placeholders is refused, and they go.
func TestTooHigh(t *testing.T) { undisturbed(t, func() error { return tooHigh(t) }) }

func tooHigh(t *testing.T) error {
	testenv.RequireRoot(t)
	before := next(t)
	p := New([]uint64{unix.Mkdev(0, 1<<20-1)})
	err := p.Fill(context.Background())
	if n := len(p.others); err == nil || n < maxPlaceholders || n > maxPlaceholders+batch {
		t.Errorf("%v with %d placeholders", err, len(p.others))
	}
	p.Close()
	return freed(func() bool { return unix.Minor(next(t)) <= unix.Minor(before)+distance })
}

// TestClosed: what the pool held is free, and the lowest number as before.
func TestClosed(t *testing.T) { undisturbed(t, func() error { return closed(t) }) }

func closed(t *testing.T) error {
	p, wanted := reserve(t, 3)
	p.Close()
	p.Close()
	again := New(wanted)
	defer again.Close()
	return freed(func() bool {
		again.Trim()
		if err := again.Fill(context.Background()); err != nil {
			t.Fatal(err)
		}
		again.Trim()
		return len(again.Placeholders()) == len(wanted)
	})
}

// TestTakeOthers: many lower numbers stay taken while their placeholders are open, so
// that another pool creates few, and are free after that.
func TestTakeOthers(t *testing.T) { undisturbed(t, func() error { return takeOthers(t) }) }

func takeOthers(t *testing.T) error {
	testenv.RequireRoot(t)
	lowest := next(t)
	wanted := above(lowest, worthKeeping+batch)
	p := New([]uint64{wanted})
	if err := p.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	others := p.TakeOthers()
	if len(others) < worthKeeping {
		t.Fatalf("%d lower numbers are taken", len(others))
	}
	p.Close()
	again := New([]uint64{wanted})
	if err := again.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := len(again.others); n >= batch {
		t.Errorf("the second pool needed %d placeholders, the first one kept those of the lower numbers", n)
	}
	f, err := again.Create(context.Background(), wanted, create)
	again.Close()
	for _, f := range others {
		f.Close()
	}
	if err != nil {
		return err
	}
	f.Close()
	return freed(func() bool { return unix.Minor(next(t)) <= unix.Minor(lowest)+distance })
}

// TestFarApart: wanted numbers with many free ones between them.
func TestFarApart(t *testing.T) {
	testenv.RequireRoot(t)
	lowest := next(t)
	var wanted []uint64
	for i := range 5 {
		wanted = append(wanted, above(lowest, distance+i*(batch+batch/2)))
	}
	p := New(wanted)
	defer p.Close()
	if err := p.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	held := p.Placeholders()
	for _, w := range wanted {
		if f := held[w]; f == nil || number(t, f) != w {
			t.Errorf("number %s is held by %v", formatDevice(w), f)
		}
	}
}

// TestPassed: a wanted number that Fill passes with superblocks whose numbers it does not
// know, because others are taken in between.
func TestPassed(t *testing.T) {
	testenv.RequireRoot(t)
	lowest := next(t)
	wanted := above(lowest, 3*batch)
	// All numbers from the next batch on are taken up to a little below the wanted one.
	taken := New([]uint64{above(wanted, -batch/2)})
	if err := taken.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := taken.others[:batch/4]
	taken.others = taken.others[batch/4:]
	for _, f := range free {
		f.Close()
	}
	p := New([]uint64{wanted})
	defer p.Close()
	if err := p.Fill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if f := p.Placeholders()[wanted]; f == nil || number(t, f) != wanted {
		t.Errorf("number %s is held by %v", formatDevice(wanted), f)
	}
}
