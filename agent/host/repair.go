package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
)

// limit is when a run is killed that did not end by its own deadline.
const limit = hook.Deadline + 2*time.Second

// exitUnreadable is autofs-restore-hook's exit status for wrong usage and "no
// such process".
const exitUnreadable = 2

// Repair repairs a container, given its first process, and returns the report. An
// error means that there is no report: the program could not be started, crashed
// or was killed. A crash or a hang costs this one repair.
func (p *Program) Repair(ctx context.Context, pid int) (*report.Report, error) {
	return p.call(ctx, "repair", strconv.Itoa(pid), "--json")
}

// Inspect looks at a container and changes nothing. The report's outcome is
// report.Planned if something would be repaired.
func (p *Program) Inspect(ctx context.Context, pid int) (*report.Report, error) {
	return p.call(ctx, "inspect", strconv.Itoa(pid), "--json")
}

// Version returns the program's name and version. An answer shows that programs
// can be run on the host.
func (p *Program) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := p.Run(ctx, "version")
	if err != nil {
		return "", err
	}
	if r.Status != 0 {
		return "", fmt.Errorf("version: exit status %d: %q", r.Status, lastLine(r.Stderr))
	}
	return strings.TrimSpace(string(r.Stdout)), nil
}

func (p *Program) call(ctx context.Context, args ...string) (*report.Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not finished within %s", limit))
	defer cancel()
	r, err := p.Run(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, because(r.Stderr))
	}
	if r.Status == exitUnreadable {
		return nil, fmt.Errorf("%q: exit status %d%s", args, r.Status, because(r.Stderr))
	}
	report, err := ParseReport(bytes.TrimSpace(r.Stdout))
	if err != nil {
		return nil, fmt.Errorf("%q: exit status %d and no report that can be read (%w)%s", args, r.Status, err, because(r.Stderr))
	}
	return report, nil
}

// ParseReport reads a report's JSON form.
func ParseReport(data []byte) (*report.Report, error) {
	var r report.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if r.Outcome == "" {
		return nil, errors.New("it has no outcome")
	}
	return &r, nil
}

// because is the last line of what a program wrote to standard error.
func because(stderr string) string {
	if line := lastLine(stderr); line != "" {
		return fmt.Sprintf(": %q", line)
	}
	return ""
}

func lastLine(text string) string {
	const most = 500
	text = strings.TrimSpace(text)
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return text[:min(len(text), most)]
}
