package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestSweptByEveryRepair: every repair removes the journal entries of restores and
// containers that have ended. The agent runs "repair" as well.
func TestSweptByEveryRepair(t *testing.T) {
	requireHook(t)
	s := checkpoint(t)
	for name, repair := range map[string]func(r *lab.Restored) lab.Result{
		"repair": func(r *lab.Restored) lab.Result {
			return lab.RunHook(t, nil, nil, "repair", strconv.Itoa(r.PID), "--json")
		},
		"poststart": func(r *lab.Restored) lab.Result {
			state, err := json.Marshal(map[string]any{"ociVersion": "1.0.2", "id": r.ID, "status": "running", "pid": r.PID, "bundle": r.Bundle})
			if err != nil {
				t.Fatal(err)
			}
			return lab.RunHook(t, state, nil, "poststart")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := restoreStale(t, s)
			var left []string
			for _, file := range []string{"restores/4000001-1.json", "containers/4000002-1.json"} {
				file = filepath.Join("/run/autofs-restore-hook", file)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
				left = append(left, file)
			}
			if result := repair(r); result.Status != 0 {
				t.Fatalf("exit status %d: %s", result.Status, result.Stderr)
			}
			for _, file := range left {
				if _, err := os.Lstat(file); err == nil {
					t.Errorf("left: %s", file)
				}
			}
			r.Kill(t)
		})
	}
}
