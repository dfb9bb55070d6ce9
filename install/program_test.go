package install

import (
	"testing"
	"time"
)

// TestRunBackgroundChild runs a program whose child keeps the output open.
func TestRunBackgroundChild(t *testing.T) {
	tree, err := openTree("/")
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	start := time.Now()
	out, err := tree.run(t.Context(), []string{"VALUE=x"}, "/bin/sh", "-c", "sleep 5 & echo $VALUE")
	if err != nil || string(out) != "x\n" {
		t.Errorf("%q, %v", out, err)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("took %s", d)
	}
}
