package restores

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/mounts"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/nsenter"
)

// Reason is the reason of the Kubernetes Events.
const Reason = "AutomountsUnrepaired"

// podTime bounds the question for a container's pod.
const podTime = 10 * time.Second

// count counts a restore, logs it and warns of what stays unrepaired.
func (k *Keeper) count(n engine.Notice, r *report.Report, by string) {
	k.Metrics.Restore(r, by)
	log := k.log(n).WithFields(logrus.Fields{"by": by, "outcome": r.Outcome, "mounts": len(r.Mounts), "duration_ms": r.DurationMS})
	if !n.Started.IsZero() {
		log = log.WithField("since_start_ms", time.Since(n.Started).Milliseconds())
	}
	message := trouble(n, r)
	if message == "" {
		log.Info("restored")
		return
	}
	log.WithField("trouble", message).Error("restored, but not all automounts work")
	k.event(n, message)
}

// event posts an Event on the container's pod.
func (k *Keeper) event(n engine.Notice, message string) {
	if k.PodOf == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(k.ctx), podTime)
	defer cancel()
	pod, err := k.PodOf(ctx, n.Namespace, n.Container)
	if err != nil {
		k.log(n).WithError(err).Warn("no Event: the container's pod is not known")
		return
	}
	if !k.Warn(pod, Reason, message) {
		k.Metrics.EventsLost.Inc()
		k.log(n).Error("an Event was dropped: too many are waiting")
	}
}

// trouble says in one line what does not work after a repair; "" if all does.
// Paths and reasons are quoted: the container chose them.
func trouble(n engine.Notice, r *report.Report) string {
	var parts []string
	if r.Error != "" {
		parts = append(parts, fmt.Sprintf("%q", r.Error))
	}
	for _, u := range r.Unrepaired() {
		parts = append(parts, fmt.Sprintf("%s unrepaired: %q", u.Listed(), u.Reason))
	}
	for _, w := range r.Waiting {
		parts = append(parts, fmt.Sprintf("process %d (%q) waits at %q", w.PID, w.Command, w.Path))
	}
	if len(parts) == 0 {
		if r.Outcome == report.Repaired || r.Outcome == report.NothingToDo {
			return ""
		}
		parts = append(parts, "outcome "+string(r.Outcome))
	}
	return fmt.Sprintf("after the restore of container %.12s: %s", n.Container, strings.Join(parts, "; "))
}

// log has the fields of every line about a container.
func (k *Keeper) log(n engine.Notice) *logrus.Entry {
	log := k.Log.WithFields(logrus.Fields{"container": n.Container, "pid": n.PID})
	if n.Namespace != "" {
		log = log.WithField("namespace", n.Namespace)
	}
	return log
}

// showsAutofs reports whether a process sees any autofs mount. systemd and
// automount make theirs where the container's first process sees them. In doubt
// it is true.
func showsAutofs(p *nsenter.Process) bool {
	table, err := mounts.Of(p)
	return err != nil || len(table.Autofs()) > 0
}
