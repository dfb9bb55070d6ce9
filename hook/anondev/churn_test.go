package anondev

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/internal/testenv"
)

// churn makes and drops superblocks until standard input ends.
func churn() int {
	stop := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	var open []*os.File
	for {
		select {
		case <-stop:
			return 0
		default:
		}
		f, err := newPlaceholder()
		if err != nil {
			fmt.Fprintln(os.Stderr, "churn:", err)
			return 1
		}
		if open = append(open, f); len(open) > rand.IntN(5) {
			open[0].Close()
			open = open[1:]
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
	}
}

// TestChurn takes numbers while other processes make and drop superblocks. It
// may fail now and then (ErrTaken), but a wrong number never comes back.
func TestChurn(t *testing.T) {
	testenv.RequireRoot(t)
	t.Setenv(roleVariable, "churn")
	for range 3 {
		testenv.StartCommand(t, nil, "/proc/self/exe")
	}
	const rounds = 200
	limit := time.Now().Add(10 * time.Second)
	got, tries, round := 0, 0, 0
	for ; round < rounds && time.Now().Before(limit); round++ {
		first := above(next(t), distance)
		p := New([]uint64{first, above(first, 2), above(first, 4)})
		if err := p.Fill(t.Context()); err != nil {
			t.Fatal(err)
		}
		for w := range p.Placeholders() { // the others were taken before
			tries++
			f, err := p.Create(t.Context(), w, create)
			if errors.Is(err, ErrTaken) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := number(t, f); n != w {
				t.Errorf("round %d: got %s, wanted %s", round, formatDevice(n), formatDevice(w))
			}
			f.Close()
			got++
		}
		p.Close()
	}
	t.Logf("%d rounds: %d of %d numbers", round, got, tries)
	if round < 5 || got == 0 || got < tries/4 {
		t.Errorf("%d rounds in time, %d of %d numbers", round, got, tries)
	}
}
