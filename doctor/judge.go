package doctor

import (
	"fmt"
	"strings"
)

// judgement collects checks.
type judgement struct {
	facts  *Facts
	checks []Check
}

func (j *judgement) add(s Status, name, text, next string) {
	j.checks = append(j.checks, Check{ID: strings.ReplaceAll(name, " ", "-"), Name: name, Status: s, Text: text, Next: next})
}

// addFeature adds a check of a feature of the kernel.
func (j *judgement) addFeature(s Status, f Feature, next string) {
	j.add(s, "kernel feature", f.Name+": "+f.Error+": "+f.Needed, next)
	j.checks[len(j.checks)-1].ID += "-" + f.ID
}

// Judge turns facts into verdicts.
func Judge(f *Facts) []Check {
	j := &judgement{facts: f}
	j.privileges()
	j.kernel()
	j.groups()
	j.criu()
	j.runtimes()
	j.hooks()
	j.targets()
	j.reports()
	return j.checks
}

func (j *judgement) privileges() {
	f := j.facts
	const name = "privileges"
	switch {
	case !f.Root:
		j.add(Fail, name, "not root", "run it as root")
	case len(f.Missing) > 0:
		j.add(Fail, name, "root without "+strings.Join(f.Missing, ", "), "run it with all capabilities, outside of containers")
	case !f.InitialUser:
		j.add(Fail, name, "root of a user namespace, where autofs cannot be mounted", "run it on the host")
	case !f.InitialPID:
		j.add(OK, name, "root with all capabilities that are needed, in a pid namespace of its own: it reaches the containers below that", "")
	default:
		j.add(OK, name, "root with all capabilities that are needed", "")
	}
}

func (j *judgement) kernel() {
	f := j.facts
	switch {
	case !f.Autofs:
		j.add(Fail, "kernel", "Linux "+f.Kernel+" without autofs", "modprobe autofs")
	case f.Device != "":
		j.add(Fail, "kernel", "Linux "+f.Kernel+" with autofs, but "+f.Device, "modprobe autofs; on a host without udev: mknod /dev/autofs c 10 235")
	default:
		j.add(OK, "kernel", "Linux "+f.Kernel+" with autofs and /dev/autofs", "")
	}
	var can []string
	for _, x := range f.Features {
		switch {
		case x.Error == "":
			can = append(can, x.Name)
		case x.Essential:
			j.addFeature(Fail, x, "use a newer kernel")
		default:
			j.addFeature(Warn, x, "use a newer kernel, or find out what forbids it")
		}
	}
	if len(can) > 0 {
		j.add(OK, "kernel features", strings.Join(can, ", "), "")
	}
	for _, s := range f.Security {
		j.add(OK, "security module", s+": if something is denied, look in its audit log", "")
	}
}

func (j *judgement) groups() {
	if version := j.facts.Cgroup; version != "" {
		j.add(OK, "cgroups", "version "+version, "")
	}
}

// reports looks at the reports of earlier repairs.
func (j *judgement) reports() {
	bad := 0
	for _, r := range j.facts.Reports {
		switch r.Outcome {
		case "repaired", "nothing-to-do":
			continue
		}
		bad++
		next := fmt.Sprintf("autofs-restore-hook inspect %d; if it still runs: autofs-restore-hook repair %d", r.PID, r.PID)
		if r.PID == 0 {
			next = "look at the report"
		}
		// Names and errors can come from a container.
		text := fmt.Sprintf("container %q: %q", r.Container, r.Outcome)
		if r.Error != "" {
			text += fmt.Sprintf(": %q", r.Error)
		}
		j.add(Warn, "report", text, next)
	}
	switch n := len(j.facts.Reports); {
	case n == 0:
		j.add(OK, "reports", "none since the last boot", "")
	case bad < n:
		j.add(OK, "reports", fmt.Sprintf("%d of the last %d repairs left nothing to do", n-bad, n), "")
	}
}
