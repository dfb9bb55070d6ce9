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

// Outcome is the result of a whole run.
type Outcome string

const (
	// Repaired means that every mount works now, and some did not before.
	Repaired Outcome = "repaired"
	// NothingToDo means that every mount worked already, or that there is none.
	NothingToDo Outcome = "nothing-to-do"
	// Partial means that some mounts were cured and others not.
	Partial Outcome = "partial"
	// Failed means that nothing was cured that had to be.
	Failed Outcome = "failed"
	// Planned is the outcome of an inspection that found work to do.
	Planned Outcome = "planned"
)

// ExitStatus is the exit status of a command with this outcome.
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

// Schema is the version of a report's JSON form, docs/report.schema.json. Fields are
// added without a new version; it changes if one is removed or means something else.
const Schema = 1

// Report says what was found and done. Its JSON form is a contract.
type Report struct {
	Schema int `json:"schema"`
	// Version is that of the program, Time when the run began, in UTC.
	Version    string     `json:"version"`
	Time       time.Time  `json:"time"`
	Container  string     `json:"container"`
	PID        int        `json:"pid"`
	Trigger    string     `json:"trigger"`
	Stage      stage.Name `json:"moment"`
	DurationMS float64    `json:"duration_ms"`
	Outcome    Outcome    `json:"outcome"`
	Error      string     `json:"error,omitempty"`
	Warnings   []string   `json:"warnings,omitempty"`
	Mounts     []Mount    `json:"mounts"`
	// Checkpoint is what CRIU would fail at if the container were checkpointed now.
	// Only an inspection looks for that; it is empty then if nothing was found.
	Checkpoint []forecast.Problem `json:"checkpoint,omitzero"`
	// Unreadable is whether the run failed because there is no such process.
	Unreadable bool `json:"-"`
	// Waiting are processes that are still blocked on an automount.
	Waiting []container.Waiter `json:"waiting,omitempty"`
	// Planned is whether nothing was done: the mounts' outcomes are what a repair
	// would try.
	Planned bool `json:"-"`
	// Stuck is whether processes wait on mounts that were cured, and waited on
	// them before: they were not released.
	Stuck bool `json:"-"`
}

// Mount is the part of a report about one autofs mount.
type Mount struct {
	Path           string `json:"path"`
	MountNamespace uint64 `json:"mount_namespace"`
	Type           string `json:"type"`
	Master         Master `json:"master"`
	// DeviceBefore is the number before the checkpoint, "" if unknown;
	// DeviceNow the one after this run.
	DeviceBefore string    `json:"device_before,omitempty"`
	DeviceNow    string    `json:"device_now"`
	Outcome      plan.Cure `json:"outcome"`
	Reason       string    `json:"reason,omitempty"`
	CoveredBy    []string  `json:"covered_by"`
	// WaitersReleased counts the processes that were blocked on the mount when
	// its repair began and are not any more.
	WaitersReleased int `json:"waiters_released"`
	// WaitersRefused counts those that got an error (ENOENT) or were ended.
	WaitersRefused int `json:"waiters_refused,omitempty"`
}

// Master names the process that serves a mount.
type Master struct {
	Kind string `json:"kind"`
	PID  int    `json:"pid"`
	Unit string `json:"unit,omitempty"`
}

// reportOf describes a mount as it is planned or, after the cures, as it is.
func reportOf(m *container.Mount, d plan.Decision) Mount {
	r := Mount{
		Path: Truncate(m.Path), MountNamespace: m.Namespace, Type: m.Options.Type.String(),
		Master:    Master{Kind: string(m.Master.Kind), PID: m.Master.PID, Unit: m.Master.Unit},
		DeviceNow: mounts.DeviceString(m.Device), Outcome: d.Cure, Reason: Truncate(d.Reason), CoveredBy: []string{},
	}
	if m.DeviceBefore != 0 {
		r.DeviceBefore = mounts.DeviceString(m.DeviceBefore)
	}
	for _, c := range m.Below[:min(len(m.Below), maxReportedCovers)] {
		r.CoveredBy = append(r.CoveredBy, Truncate(fmt.Sprintf("%s on %s", c.Type, c.Path)))
	}
	if more := len(m.Below) - maxReportedCovers; more > 0 {
		r.CoveredBy = append(r.CoveredBy, fmt.Sprintf("%d more", more))
	}
	return r
}

// size is how much text of the container's the report has, in bytes.
func (r *Mount) size() int {
	size := len(r.Path) + len(r.Reason) + len(r.Master.Unit)
	for _, text := range r.CoveredBy {
		size += len(text)
	}
	return size
}

// shorten leaves only what tells one mount from another.
func (r *Mount) shorten() {
	r.Path, r.Reason, r.Master.Unit = TruncateTo(r.Path, MaxShort), TruncateTo(r.Reason, MaxShort), TruncateTo(r.Master.Unit, MaxShort)
	if len(r.CoveredBy) > 0 {
		r.CoveredBy = []string{fmt.Sprintf("%d mounts", len(r.CoveredBy))}
	}
}

// conclude sets the outcome of the run from those of the mounts.
func (r *Report) conclude() {
	if r.Error != "" {
		r.Outcome = Failed
		return
	}
	cured, left := 0, 0
	for _, m := range r.Mounts {
		switch m.Outcome {
		case plan.Healthy:
		case plan.Unrepaired:
			left++
		default:
			cured++
		}
	}
	switch {
	case r.Planned && cured+left > 0:
		r.Outcome = Planned
	case r.Stuck && left == 0, left > 0 && cured > 0:
		r.Outcome = Partial
	case left > 0:
		r.Outcome = Failed
	case cured > 0:
		r.Outcome = Repaired
	default:
		r.Outcome = NothingToDo
	}
}

// Unjudged reports whether mounts could not be judged now: a later look may.
func (r *Report) Unjudged() bool {
	return slices.ContainsFunc(r.Mounts, func(m Mount) bool {
		return m.Outcome == plan.Unrepaired && strings.HasPrefix(m.Reason, plan.CannotJudge)
	})
}

// UnrepairedMounts is what stays unrepaired for one reason.
type UnrepairedMounts struct {
	Reason string
	Paths  []string
}

// Unrepaired groups the mounts that stay unrepaired by the reason, each path
// once.
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

// Summary is the report in one line.
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
	done, but := r.done(cured, counts[plan.Unrepaired])
	line := fmt.Sprintf("%s: %s in %.1f ms%s", name, done, r.DurationMS, but)
	if len(parts) > 0 {
		line += ": " + strings.Join(parts, ", ")
	}
	return line
}

// done says in words what came of the run.
func (r *Report) done(cured, left int) (done, but string) {
	switch {
	case len(r.Mounts) == 0:
		return "no automounts: nothing to do", ""
	case cured+left == 0:
		return "nothing to do", ""
	case r.Planned:
		return "nothing was changed", ", planned"
	case left > 0:
		done = fmt.Sprintf("%d of %s repaired", cured, automounts(cured+left))
	default:
		done = automounts(cured) + " repaired"
	}
	if r.Stuck {
		but = ", but processes still wait"
	}
	return done, but
}

func automounts(n int) string {
	if n == 1 {
		return "1 automount"
	}
	return strconv.Itoa(n) + " automounts"
}

// count counts the automounts by outcome, each once however many mount namespaces show
// it: unrepaired if it is in one of them. cured are those that were neither healthy nor
// left.
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

// Describe fills in what is known about each mount.
func (r *Report) Describe(s *container.Snapshot, plan []plan.Decision) {
	size := 0
	for _, d := range plan {
		m := reportOf(&s.Mounts[d.Mount], d)
		if size += m.size(); size > maxReport {
			m.shorten()
		}
		r.Mounts = append(r.Mounts, m)
	}
	r.Waiting = s.Waiters
}

// AddUnmounted adds the offset triggers that Preserve has unmounted.
func (r *Report) AddUnmounted(namespace uint64, paths []string) {
	for _, path := range paths {
		r.Mounts = append(r.Mounts, Mount{
			Path: Truncate(path), MountNamespace: namespace, Type: autofs.Offset.String(),
			Master: Master{Kind: string(master.Automount)}, Outcome: plan.Reloaded, Reason: plan.UnmountedReason, CoveredBy: []string{},
		})
	}
}

// Finish sets duration, error and outcome.
func (r *Report) Finish(begin time.Time, err error) {
	r.DurationMS = float64(time.Since(begin).Microseconds()) / 1000
	if err != nil {
		r.Error = Truncate(err.Error())
		r.Unreadable = errors.Is(err, fs.ErrNotExist)
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
