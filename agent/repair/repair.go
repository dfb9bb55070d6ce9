// Package repair calls the light binary for one container, in a process of its
// own: a crash or a hang of one repair costs that repair.
package repair

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/host"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/reports"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

// limit is when a run is killed that did not end by its own deadline.
const limit = hook.Deadline + 2*time.Second

// exitUnreadable is the light binary's exit status for wrong usage and "no such
// process".
const exitUnreadable = 2

// Program is the light binary.
type Program struct{ *host.Program }

// Repair repairs a container, given its first process, and returns the report. An
// error means that there is no report: it could not be started, crashed or was
// killed.
func (p Program) Repair(ctx context.Context, pid int) (*hook.Report, error) {
	return p.call(ctx, "repair", strconv.Itoa(pid), "--json")
}

// Inspect looks at a container and changes nothing. The report's outcome is
// hook.Planned if something would be repaired.
func (p Program) Inspect(ctx context.Context, pid int) (*hook.Report, error) {
	return p.call(ctx, "inspect", strconv.Itoa(pid), "--json")
}

// Version is what the program calls its version. That it answers shows that
// programs can be run on the host.
func (p Program) Version(ctx context.Context) (string, error) {
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

func (p Program) call(ctx context.Context, args ...string) (*hook.Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not finished within %s", limit))
	defer cancel()
	r, err := p.Run(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, because(r.Stderr))
	}
	if r.Status == exitUnreadable {
		return nil, fmt.Errorf("%q: exit status %d%s", args, r.Status, because(r.Stderr))
	}
	report, err := reports.Parse(bytes.TrimSpace(r.Stdout))
	if err != nil {
		return nil, fmt.Errorf("%q: exit status %d and no report that can be read (%w)%s", args, r.Status, err, because(r.Stderr))
	}
	return report, nil
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
