package hook

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
)

// TestPreserveWithoutAutofs: if the images have no autofs mount, Preserve does not even
// open the processes. Without images it does.
func TestPreserveWithoutAutofs(t *testing.T) {
	r := Runner{Directory: t.TempDir(), Warn: func(err error) { t.Error(err) }}
	for name, done := range map[string]bool{"mountpoints-13.img": true, "inventory.img": false, "": false} {
		dir := t.TempDir()
		if name == "" {
			dir = filepath.Join(dir, "gone")
		} else if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		const noProcess = 1 << 30
		err := r.preserve(context.Background(), Event{Stage: stage.Preserve, PID: noProcess, CRIU: noProcess, ImageDir: dir})
		if (err == nil) != done {
			t.Errorf("%q: %v", name, err)
		}
	}
}
