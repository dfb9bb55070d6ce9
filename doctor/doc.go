// Package doctor tells whether the program will be called, and what it will be
// able to do, on this machine.
//
// [Gather] looks, and [Judge] is a pure function from what was seen to verdicts,
// each with the next step. Features of the kernel are tried, not derived from
// its version.
package doctor

// Status is a verdict on one thing.
type Status string

// The verdicts, the worst last.
const (
	// OK is also what is merely worth knowing.
	OK Status = "OK"
	// Warn is what will cost something: a milder cure, or one engine.
	Warn Status = "WARN"
	// Fail is what will keep the program from working, or stop containers.
	Fail Status = "FAIL"
)

// Check is one thing that was looked at.
type Check struct {
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
