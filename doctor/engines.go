package doctor

import (
	"fmt"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

// First versions that behave differently.
var (
	// singleReadCRIU reads a configuration file that a runtime names only once (commit
	// c03c08d1b); older ones run each action script of such a file twice.
	singleReadCRIU = install.Version{4, 2}
	// configCrun names a configuration file.
	configCrun = install.Version{1, 26}
	// singleCgroupRunc restores the processes of a container without a cgroup namespace
	// into one control group; 1.1.15 does not, 1.3.6 does.
	singleCgroupRunc = install.Version{1, 3}
	// restoringContainerd is the first whose CRI restores containers, and
	// removedContainerd the first whose CRI does not any more.
	restoringContainerd, removedContainerd = install.Version{2, 1}, install.Version{2, 4}
)

// oldestCRIU returns the version of the oldest CRIU of the machine; false if none is known.
func (j *judgement) oldestCRIU() (v install.Version, ok bool) {
	for _, p := range j.facts.Survey.Programs {
		if p.Name == "criu" && p.Problem == "" && (!ok || p.Version.Less(v)) {
			v, ok = p.Version, true
		}
	}
	return v, ok
}

func (j *judgement) criu() {
	count := 0
	for _, p := range j.facts.Survey.Programs {
		if p.Name != "criu" {
			continue
		}
		count++
		switch {
		case p.Problem != "":
			j.add(Fail, "criu", p.Path+": "+p.Problem, "run criu check")
		case p.Version.Less(install.ScriptVersion):
			j.add(Warn, "criu", fmt.Sprintf("%s is version %s: under runc it fails with an action script in a configuration file", p.Path, p.Version),
				"install CRIU "+install.ScriptVersion.String()+" or later, or use OCI hooks (autofs-restore-hook install --engine podman)")
		default:
			j.add(OK, "criu", fmt.Sprintf("%s is version %s", p.Path, p.Version), "")
		}
	}
	if count == 0 {
		j.add(Fail, "criu", "not found: no container can be restored", "install criu")
	}
	for _, text := range j.facts.Survey.Unreadable {
		j.add(Fail, "criu configuration", text, "put a text file there, or remove it")
	}
	j.forceIrmap()
	v, known := j.oldestCRIU()
	for _, s := range j.facts.Survey.Scripts {
		target := j.facts.Survey.Target(s.Program)
		switch {
		case known && v.Less(install.ScriptVersion):
			j.add(Fail, "criu configuration", fmt.Sprintf("%s has an action script: CRIU %s aborts every checkpoint and restore of runc with it", s.File, v),
				"remove the line action-script "+s.Program)
		case target.Problem != "" && target.Calls != "":
			j.add(Fail, "criu configuration", fmt.Sprintf("%s calls %q, which calls %q: %s; nothing is repaired", s.File, s.Program, target.Calls, target.Problem),
				"autofs-restore-hook install")
		case target.Problem != "":
			j.add(Fail, "criu configuration", fmt.Sprintf("%s calls %q: %s; CRIU aborts every restore", s.File, s.Program, target.Problem),
				"put the program there, or remove the line")
		default:
			j.add(OK, "criu configuration", fmt.Sprintf("%s calls %q", s.File, s.Program), "")
		}
	}
}

// forceIrmap tells where the checkpoints of this machine can be restored.
func (j *judgement) forceIrmap() {
	text := "no " + install.ForceIrmap + ": where systemd watches a symbolic link, as /etc/localtime usually is, a checkpoint can be restored on the same root " +
		"filesystem only (\"Stale file handle\" on another); autofs-restore-hook install --force-irmap changes that, for every dump of this machine"
	if files := j.facts.Survey.ForceIrmap; len(files) > 0 {
		text = strings.Join(files, ", ") + " sets " + install.ForceIrmap + ": checkpoints of systemd containers can be restored on another root filesystem; " +
			"a dump in which a watched file has no path fails (\"Can't dump that handle\")"
	}
	j.add(OK, "checkpoints", text, "")
}

// runtimes tells for each runtime how often its CRIU calls the program.
func (j *judgement) runtimes() {
	v, known := j.oldestCRIU()
	hooks := 0
	for _, h := range j.facts.Survey.Hooks {
		if h.Problem == "" && j.facts.Survey.Target(h.Program).IsProgram {
			hooks++
		}
	}
	for _, p := range j.facts.Survey.Programs {
		text := fmt.Sprintf("%s is version %s", p.Path, p.Version)
		if p.Problem != "" {
			text = p.Path + ": " + p.Problem
		}
		switch p.Name {
		case "criu":
			continue
		case "runc", "crun", "lxc-checkpoint", "incus":
		default:
			j.engine(p, text)
			continue
		}
		if p.Name == "crun" || p.Name == "runc" && p.Problem == "" && !p.Version.Less(singleCgroupRunc) {
			j.add(OK, p.Name, "it restores a container without a cgroup namespace into one control group: its systemd then cannot tell which service a process belongs to; "+
				"create systemd containers with a cgroup namespace (podman run --cgroupns=private)", "")
		}
		calls := j.countCalls(p, v)
		switch {
		case calls > 0 && known && !v.Less(install.ScriptVersion):
			how := "once"
			if calls > 1 {
				how = fmt.Sprintf("%d times, and the work is done once,", calls)
			}
			j.add(OK, p.Name, text+"; its CRIU calls the program "+how+" at each stage", "")
		case p.Name == "runc" && hooks > 0:
			j.add(OK, p.Name, text+"; containers that were created with the OCI hook are repaired after their restore", "")
		case known && v.Less(install.ScriptVersion):
			j.add(Fail, p.Name, text+"; nothing calls the program", "install CRIU "+install.ScriptVersion.String()+" or later")
		default:
			j.add(Fail, p.Name, text+"; nothing calls the program", "autofs-restore-hook install")
		}
	}
}

// engine adds the check whether an engine restores containers.
func (j *judgement) engine(p install.Program, text string) {
	switch {
	case p.RestoreOff != "":
		j.add(Warn, p.Name, fmt.Sprintf("%s; restore is switched off by its configuration (%s): no container of a pod is restored", text, p.RestoreOff), restoreOn[p.Name])
	case p.Name == "containerd" && p.Problem == "" && (p.Version.Less(restoringContainerd) || !p.Version.Less(removedContainerd)):
		j.add(OK, p.Name, text+"; it restores containers with runc, but not those of pods", "")
	default:
		j.add(OK, p.Name, text+"; it restores containers with runc or crun", "")
	}
}

// restoreOn says how restore is switched on.
var restoreOn = map[string]string{
	"containerd": "where pods are to be restored, set enable_experimental_restore_via_create = true for the plugin io.containerd.cri.v1.runtime " +
		"(manifests/containerd/restore.toml), not enable_criu = false, and restart containerd",
	"crio": `where pods are to be restored, set enable_criu_support = true and, if this release knows it, container_level_enabled = "checkpoint_restore" ` +
		"(manifests/crio/10-checkpoint-restore.conf), and restart CRI-O",
}

// countCalls returns how often CRIU calls the program at a stage when p starts it.
// Every CRIU reads the first two files; runc and crun name one more.
func (j *judgement) countCalls(p install.Program, criu install.Version) int {
	times, crunFile := 0, "/etc/criu/runc.conf"
	for _, s := range j.facts.Survey.Scripts {
		if s.File == "/etc/criu/crun.conf" {
			crunFile = s.File
		}
	}
	for _, s := range j.facts.Survey.Scripts {
		if t := j.facts.Survey.Target(s.Program); !t.IsProgram || t.Problem != "" {
			continue
		}
		switch {
		case strings.HasSuffix(s.File, "/default.conf"):
			times++
		case p.Name == "runc" && s.File == "/etc/criu/runc.conf":
			times++
			if criu.Less(singleReadCRIU) {
				times++
			}
		case p.Name == "crun" && s.File == crunFile && !p.Version.Less(configCrun) && !criu.Less(singleReadCRIU):
			times++
		}
	}
	return times
}

// hooks judges the hook files of podman, CRI-O and containerd.
func (j *judgement) hooks() {
	for _, h := range j.facts.Survey.Hooks {
		t := install.Target{}
		if h.Problem == "" {
			t = j.facts.Survey.Target(h.Program)
		}
		switch {
		case h.Problem != "":
			j.add(Fail, "hook file", fmt.Sprintf("%s: %q: engines that read it start no container", h.File, h.Problem), "fix or remove it")
		case t.Problem != "":
			j.add(Fail, "hook file", fmt.Sprintf("%s calls %q: %s; containers with this hook do not start", h.File, h.Program, t.Problem),
				"put the program there, or remove the file")
		default:
			j.add(OK, "hook file", fmt.Sprintf("%s calls %q", h.File, h.Program), "")
		}
	}
}

// targets judges the installed programs.
func (j *judgement) targets() {
	count := 0
	for _, t := range j.facts.Survey.Targets {
		if t.Calls != "" || !t.IsProgram && !strings.HasSuffix(t.Path, "/autofs-restore-hook") {
			continue
		}
		count++
		switch {
		case t.Problem != "":
			j.add(Fail, "program", t.Path+": "+t.Problem, "autofs-restore-hook install")
		case !t.IsProgram:
			j.add(Fail, "program", t.Path+" is another program", "move it away, then run autofs-restore-hook install")
		case t.Version != j.facts.Version:
			j.add(Warn, "program", fmt.Sprintf("%s is version %q, this is %q", t.Path, t.Version, j.facts.Version), "run install of the version that you want")
		default:
			j.add(OK, "program", fmt.Sprintf("%s is version %q", t.Path, t.Version), "")
		}
	}
	if count == 0 {
		j.add(Fail, "program", "not installed", "autofs-restore-hook install")
	}
}
