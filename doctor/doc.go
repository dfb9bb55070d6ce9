// Package doctor tells whether the program will be called on this machine, and what it
// will be able to do.
//
// [Gather] collects facts, and [Judge] is a pure function from facts to verdicts, each
// with the next step. Features of the kernel are tried, not derived from its version.
package doctor

// Status is a verdict on one thing.
type Status string

// The verdicts, the worst last.
const (
	// OK is also for information.
	OK Status = "OK"
	// Warn means that something is missing, such as one of the cures, or one engine.
	Warn Status = "WARN"
	// Fail means that the program cannot work, or that containers cannot start.
	Fail Status = "FAIL"
)

// Check is the verdict on one thing.
type Check struct {
	// ID says what was looked at, and is part of the contract: the name, and for a
	// feature of the kernel which one. Several checks may have one ID, as those of files.
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status Status `json:"status"`
	Text   string `json:"text"`
	Next   string `json:"next,omitempty"` // the next step
}

// ExitStatus is 0 if nothing is wrong, 1 with warnings, 2 with failures.
func ExitStatus(checks []Check) int {
	worst := 0
	for _, c := range checks {
		switch c.Status {
		case Fail:
			worst = 2
		case Warn:
			worst = max(worst, 1)
		default:
		}
	}
	return worst
}
