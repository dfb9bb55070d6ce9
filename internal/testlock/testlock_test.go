package testlock

import (
	"os"
	"testing"
	"time"
)

func must(t *testing.T, take func() (*os.File, error)) *os.File {
	t.Helper()
	f, err := take()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestTurns: one that wants the lock alone gets it when those have ended that had it
// before, and others that come later wait.
func TestTurns(t *testing.T) {
	before := dir
	dir = t.TempDir()
	t.Cleanup(func() { dir = before })
	one, two := must(t, Share), must(t, Share)
	order := make(chan string, 2)
	start := func(name string, take func() (*os.File, error)) {
		go func() {
			f, err := take()
			if err != nil {
				name = err.Error()
			}
			order <- name
			f.Close()
		}()
		time.Sleep(50 * time.Millisecond)
	}
	one.Close()
	start("alone", Alone)
	start("shared", Share)
	if len(order) > 0 {
		t.Errorf("%s beside another", <-order)
	}
	two.Close()
	if first, second := <-order, <-order; first != "alone" || second != "shared" {
		t.Errorf("first %s, then %s", first, second)
	}
}

func TestPatience(t *testing.T) {
	before, standard := dir, patience
	dir, patience = t.TempDir(), 50*time.Millisecond
	t.Cleanup(func() { dir, patience = before, standard })
	defer must(t, Alone).Close()
	if _, err := Share(); err == nil {
		t.Error("shared beside one that has it alone")
	} else {
		t.Log(err)
	}
}
