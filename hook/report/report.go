package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook/autofs"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/master"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/plan"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
)

// Outcome is the result of a run.
type Outcome string

const (
	// Repaired means that all stale mounts were cured.
	Repaired Outcome = "repaired"
	// NothingToDo means that there was no stale mount.
	NothingToDo Outcome = "nothing-to-do"
	// Partial means that some stale mounts were cured and others not, or that
	// processes still wait on cured mounts.
	Partial Outcome = "partial"
	// Failed means that no stale mount was cured, or that the run ended with an error.
	Failed Outcome = "failed"
	// Planned is the outcome of an inspection that found stale mounts.
	Planned Outcome = "planned"
)

// ExitStatus returns the exit status of a command with this outcome.
func (o Outcome) ExitStatus() int {
	switch o {
	case Failed:
		return 1
	case Partial:
		return 3
	default:
		return 0
	}
}

// Schema is the version of a report's JSON form, docs/report.schema.json. A new field does
// not change it; a field that is removed or changes its meaning does.
const Schema = 1

// Report has the results of a run. Its JSON form is a contract.
type Report struct {
	Schema int `json:"schema"`
	// Version is the version of the program.
	Version string `json:"version"`
	// Time is the start of the run, in UTC.
	Time time.Time `json:"time"`
	// Container is the engine's name for the container, or one made of its pid.
	Container string `json:"container"`
	// PID is the container's first process.
	PID int `json:"pid"`
	// Trigger names the caller, such as "criu:post-resume".
	Trigger    string     `json:"trigger"`
	Stage      stage.Name `json:"moment"`
	DurationMS float64    `json:"duration_ms"`
	Outcome    Outcome    `json:"outcome"`
	Error      string     `json:"error,omitempty"`
	Warnings   []string   `json:"warnings,omitempty"`
	Mounts     []Mount    `json:"mounts"`
	// Checkpoint has the problems that CRIU would have with a checkpoint of the
	// container. It is nil except in an inspection.
	Checkpoint []forecast.Problem `json:"checkpoint,omitzero"`
	// NoProcess is whether the run failed because the process does not exist.
	NoProcess bool `json:"-"`
	// Waiting are the processes that still wait on an automount.
	Waiting []container.Waiter `json:"waiting,omitempty"`
	// Planned is whether the run was an inspection: nothing was changed, and the
	// mounts' outcomes are those that a repair would try.
	Planned bool `json:"-"`
	// Repeated is whether an earlier call at this restore has done the work.
	Repeated bool `json:"-"`
	// Stuck is whether processes that waited on cured mounts before the repair still
	// wait.
	Stuck bool `json:"-"`
}

// Mount is the part of a report about one autofs mount.
type Mount struct {
	Path           string `json:"path"`
	MountNamespace uint64 `json:"mount_namespace"`
	Type           string `json:"type"`
	Master         Master `json:"master"`
	// DeviceBefore is the device number before the checkpoint, "" if unknown;
	// DeviceNow is the one after this run. Both have the form "major:minor".
	DeviceBefore string    `json:"device_before,omitempty"`
	DeviceNow    string    `json:"device_now"`
	Outcome      plan.Cure `json:"outcome"`
	Reason       string    `json:"reason,omitempty"`
	// Unjudged is whether it is unknown if an unrepaired mount is stale.
	Unjudged  bool     `json:"unjudged,omitempty"`
	CoveredBy []string `json:"covered_by"`
	// WaitersReleased is the number of waiters that the repair has released.
	WaitersReleased int `json:"waiters_released"`
	// WaitersRefused is the number of waiters that got an error (ENOENT) or were killed.
	WaitersRefused int `json:"waiters_refused,omitempty"`
}

// Master names the process that serves a mount.
type Master struct {
	Kind string `json:"kind"`
	PID  int    `json:"pid"`
	Unit string `json:"unit,omitempty"`
}

// newMount describes a mount and the decision about it.
func newMount(m *container.Mount, d plan.Decision) Mount {
	reason := d.Reason
	if d.Unjudged {
		reason = "cannot be judged now: " + reason
	}
	r := Mount{
		Path: truncate(m.Path), MountNamespace: m.Namespace, Type: m.Options.Type.String(),
		Master:    Master{Kind: string(m.Master.Kind), PID: m.Master.PID, Unit: m.Master.Unit},
		DeviceNow: mounts.DeviceString(m.Device), Outcome: d.Cure, Reason: truncate(reason), Unjudged: d.Unjudged, CoveredBy: []string{},
	}
	if m.DeviceBefore != 0 {
		r.DeviceBefore = mounts.DeviceString(m.DeviceBefore)
	}
	for _, c := range m.Below[:min(len(m.Below), maxReportedCovers)] {
		r.CoveredBy = append(r.CoveredBy, truncate(fmt.Sprintf("%s on %s", c.Type, c.Path)))
	}
	if more := len(m.Below) - maxReportedCovers; more > 0 {
		r.CoveredBy = append(r.CoveredBy, fmt.Sprintf("%d more", more))
	}
	return r
}

// size returns the length of the texts that come from the container, in bytes.
func (m *Mount) size() int {
	size := len(m.Path) + len(m.Reason) + len(m.Master.Unit)
	for _, text := range m.CoveredBy {
		size += len(text)
	}
	return size
}

// shorten truncates the texts to MaxShort bytes, and replaces the covers by their number.
func (m *Mount) shorten() {
	m.Path, m.Reason, m.Master.Unit = TruncateTo(m.Path, MaxShort), TruncateTo(m.Reason, MaxShort), TruncateTo(m.Master.Unit, MaxShort)
	if len(m.CoveredBy) > 0 {
		m.CoveredBy = []string{fmt.Sprintf("%d mounts", len(m.CoveredBy))}
	}
}

// conclude sets the outcome of the run from those of the mounts.
func (r *Report) conclude() {
	if r.Error != "" {
		r.Outcome = Failed
		return
	}
	cured, unrepaired := 0, 0
	for _, m := range r.Mounts {
		switch m.Outcome {
		case plan.Healthy:
		case plan.Unrepaired:
			unrepaired++
		default:
			cured++
		}
	}
	switch {
	case r.Planned && cured+unrepaired > 0:
		r.Outcome = Planned
	case r.Stuck && unrepaired == 0, unrepaired > 0 && cured > 0:
		r.Outcome = Partial
	case unrepaired > 0:
		r.Outcome = Failed
	case cured > 0:
		r.Outcome = Repaired
	default:
		r.Outcome = NothingToDo
	}
}

// Unjudged reports whether it is unknown of a mount whether it is stale. A later run may
// know it.
func (r *Report) Unjudged() bool {
	return slices.ContainsFunc(r.Mounts, func(m Mount) bool {
		return m.Unjudged
	})
}

// UnrepairedMounts are the mounts that are unrepaired for one reason.
type UnrepairedMounts struct {
	Reason string
	Paths  []string
}

// Unrepaired returns the unrepaired mounts by reason. A path that several mount
// namespaces show is listed once.
func (r *Report) Unrepaired() []UnrepairedMounts {
	var groups []UnrepairedMounts
	group := map[string]int{} // by reason
	seen := map[[2]string]bool{}
	for _, m := range r.Mounts {
		if m.Outcome != plan.Unrepaired || seen[[2]string{m.Reason, m.Path}] {
			continue
		}
		seen[[2]string{m.Reason, m.Path}] = true
		i, known := group[m.Reason]
		if !known {
			i = len(groups)
			group[m.Reason] = i
			groups = append(groups, UnrepairedMounts{Reason: m.Reason})
		}
		groups[i].Paths = append(groups[i].Paths, m.Path)
	}
	return groups
}

// Summary returns the report in one line.
func (r *Report) Summary() string {
	name := r.Container
	if name == "" {
		name = "process " + strconv.Itoa(r.PID)
	}
	if r.Error != "" {
		return fmt.Sprintf("%s: failed in %.1f ms: %q", name, r.DurationMS, strings.TrimPrefix(r.Error, name+": "))
	}
	counts, cured := r.count()
	var parts []string
	for _, c := range []plan.Cure{plan.Preserved, plan.Reexecuted, plan.Reloaded, plan.Restarted, plan.Unrepaired, plan.Healthy} {
		if counts[c] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[c], c))
		}
	}
	result, suffix := r.result(cured, counts[plan.Unrepaired])
	line := fmt.Sprintf("%s: %s in %.1f ms%s", name, result, r.DurationMS, suffix)
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	return line
}

// result describes the result of the run; suffix follows the duration.
func (r *Report) result(cured, unrepaired int) (result, suffix string) {
	switch {
	case len(r.Mounts) == 0:
		return "no automounts: nothing to do", ""
	case cured+unrepaired == 0:
		return "nothing to do", ""
	case r.Repeated:
		return "nothing to do", ", done by an earlier call"
	case r.Planned:
		return "nothing was changed", ", planned"
	case unrepaired > 0:
		result = fmt.Sprintf("%d of %s repaired", cured, automounts(cured+unrepaired))
	default:
		result = automounts(cured) + " repaired"
	}
	if r.Stuck {
		suffix = ", but processes still wait"
	}
	return result, suffix
}

func automounts(n int) string {
	if n == 1 {
		return "1 automount"
	}
	return strconv.Itoa(n) + " automounts"
}

// count counts the automounts by outcome. An automount that several mount namespaces show
// counts once, as unrepaired if it is unrepaired in one of them. cured is the number of
// those that are neither healthy nor unrepaired.
func (r *Report) count() (counts map[plan.Cure]int, cured int) {
	type automount struct{ path, device string }
	outcomes := map[automount]plan.Cure{}
	for i := range r.Mounts {
		m := &r.Mounts[i]
		key := automount{m.Path, m.DeviceNow}
		if _, seen := outcomes[key]; !seen || m.Outcome == plan.Unrepaired {
			outcomes[key] = m.Outcome
		}
	}
	counts = map[plan.Cure]int{}
	for _, c := range outcomes {
		counts[c]++
	}
	for c, n := range counts {
		if c != plan.Healthy && c != plan.Unrepaired {
			cured += n
		}
	}
	return counts, cured
}

// Describe adds the mounts of a snapshot with the decisions about them, and its waiters.
func (r *Report) Describe(s *container.Snapshot, decisions []plan.Decision) {
	size := 0
	for i, d := range decisions {
		m := newMount(&s.Mounts[i], d)
		if size += m.size(); size > maxReport {
			m.shorten()
		}
		r.Mounts = append(r.Mounts, m)
	}
	r.Waiting = s.Waiters
}

// AddUnmounted adds the offset triggers that Preserve has unmounted, by path. namespace
// is the inode number of their mount namespace.
func (r *Report) AddUnmounted(namespace uint64, paths []string) {
	for _, path := range paths {
		r.Mounts = append(r.Mounts, Mount{
			Path: truncate(path), MountNamespace: namespace, Type: autofs.Offset.String(),
			Master: Master{Kind: string(master.Automount)}, Outcome: plan.Reloaded, Reason: plan.UnmountedReason, CoveredBy: []string{},
		})
	}
}

// Finish sets the duration since begin, the error and the outcome.
func (r *Report) Finish(begin time.Time, err error) {
	r.DurationMS = float64(time.Since(begin).Microseconds()) / 1000
	if err != nil {
		r.Error = truncate(err.Error())
		r.NoProcess = errors.Is(err, fs.ErrNotExist)
	}
	r.conclude()
}

// Encode returns the report's JSON form, with a final newline.
func (r *Report) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return append(data, '\n'), nil
}
