// Package bench measures what the program adds to a restore, in the
// laboratory's node: `make bench`.
package bench

import (
	"os"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// BenchmarkRestore restores the same checkpoint without and with the program as
// CRIU's action script. The metric is the time of the whole runtime command.
func BenchmarkRestore(b *testing.B) {
	lab.RequireNode(b)
	if _, err := os.Stat(lab.Hook()); err != nil {
		b.Fatalf("the program to measure: %v (make build, or HOOK=/path)", err)
	}
	c := lab.Start(b, lab.Options{})
	c.Populate(b)
	checkpoint := c.Checkpoint(b)
	for _, variant := range []struct{ name, script string }{
		{"without", ""},
		{"with", lab.Hook()},
	} {
		b.Run(variant.name, func(b *testing.B) {
			lab.InstallActionScript(b, variant.script)
			var total time.Duration
			for range b.N {
				r := checkpoint.Restore(b, lab.RestoreOptions{})
				total += r.Took
				r.Kill(b)
			}
			b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), "ms/restore")
			b.ReportMetric(0, "ns/op") // it would count the clean-up as well
		})
	}
}
