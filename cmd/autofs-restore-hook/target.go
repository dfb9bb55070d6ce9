package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/autofs-restore-hook/autofs-restore-hook/cmd/internal/containers"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/container"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/report"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/stage"
	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

const aboutContainer = `CONTAINER is the name or ID of a running container of podman, CRI-O, containerd, Docker, runc or crun, the beginning of an ID, or the number of the container's first process as the host sees it. A container of LXC is named by that number:

  lxc-info -pHn NAME`

func inspectCommand() *command {
	c := newCommand("inspect", "CONTAINER|--all", "show the automounts of a container, and what repair would do", `Show each autofs mount of a container, the process that serves it (its master), and what repair would do. Show also what CRIU would fail at in a checkpoint, or in a restore elsewhere. Nothing is changed.

`+aboutContainer)
	r := request{command: c, strategy: string(container.Auto)}
	r.sharedOptions()
	c.run = func(words []string) (int, error) { return r.start(words, inspect) }
	return c
}

func repairCommand() *command {
	c := newCommand("repair", "CONTAINER|--all", "repair the automounts of a restored container", `Repair the autofs mounts of a restored container. A mount that works is left alone: repairing again does no harm.

`+aboutContainer+`

The strategy limits what is tried for mounts that systemd serves:

  auto     what costs the container least: reexec, then restart
  reexec   have systemd re-execute itself and correct what it remembers,
           also where nothing shows that it was restored; restart no unit
  restart  restart the units of a systemd that was restored`)
	r := request{command: c, strategy: string(container.Auto)}
	r.sharedOptions()
	c.options.Var(choice{[]string{string(container.Auto), string(container.ReexecOnly), string(container.RestartOnly)}, &r.strategy},
		"strategy", "what to try for mounts of systemd")
	c.options.BoolVar(&r.killWaiters, "kill-waiters", false, "SIGKILL processes that wait on a mount and cannot be released")
	c.run = func(words []string) (int, error) { return r.start(words, repair) }
	return c
}

// request holds the options of inspect or repair.
type request struct {
	command     *command
	all, asJSON bool
	strategy    string
	killWaiters bool
}

func (r *request) sharedOptions() {
	r.command.options.BoolVar(&r.all, "all", false, "every running container that has automounts and a name")
	r.command.options.BoolVar(&r.asJSON, "json", false, "print the report as JSON")
}

var errOneContainer = errors.New("want one container, or --all")

func (r *request) start(words []string, run func(e hook.Event, asJSON bool) int) (int, error) {
	if r.all != (len(words) == 0) || len(words) > 1 {
		return 0, errOneContainer
	}
	if r.all {
		return r.runAll(), nil
	}
	c, err := resolve(words[0])
	if err != nil {
		return 0, err
	}
	return run(hook.Event{
		Trigger: "command:" + r.command.name, Stage: stage.Repair, PID: c.PID, ContainerID: c.ID, Visitors: true,
		Strategy: container.Strategy(r.strategy), KillWaiters: r.killWaiters,
	}, r.asJSON), nil
}

// resolve finds the container; its ID stays unknown where it is named by its first
// process.
func resolve(word string) (containers.Container, error) {
	if pid, err := strconv.Atoi(word); err == nil {
		if pid <= 0 {
			return containers.Container{}, fmt.Errorf("process %q: a process number must be positive", word)
		}
		return containers.Container{PID: pid}, nil
	}
	list, unusable := containers.List("/")
	c, err := containers.Find(list, word)
	switch {
	case err == nil:
		return c, nil
	case os.Geteuid() != 0:
		return c, fmt.Errorf("%w; run it as root: others cannot read the state of containers", err)
	}
	return c, errors.Join(err, unusable)
}

// listVerb lists what can be given as CONTAINER, for the completions.
const listVerb = "list-containers"

func listContainers() int {
	list, _ := containers.List("/")
	for _, c := range list {
		fmt.Println(c.ID)
		for _, name := range c.Names {
			fmt.Println(name)
		}
	}
	return exitDone
}

// runAll runs this program once for each container: each run has its own time limit,
// and no container's processes see the next one.
func (r *request) runAll() int {
	list, err := containers.List("/")
	if err != nil {
		r.command.complain(err)
	}
	var options []string
	r.command.options.Visit(func(f *pflag.Flag) {
		if f.Name != "all" {
			options = append(options, "--"+f.Name+"="+f.Value.String())
		}
	})
	done, failed := 0, 0
	for _, c := range list {
		if !c.HasAutofs() {
			continue
		}
		cmd := exec.Command("/proc/self/exe", append([]string{r.command.name, strconv.Itoa(c.PID)}, options...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			r.command.complain(fmt.Errorf("container %s: %w", c, err))
			failed++
			if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == exitPartly {
				done++
			}
			continue
		}
		done++
	}
	switch {
	case failed > 0 && done > 0:
		return exitPartly
	case failed > 0 || err != nil:
		return exitFailed
	case done == 0 && !r.asJSON:
		fmt.Println("no running container with a name and automounts was found")
	}
	return exitDone
}

func repair(event hook.Event, asJSON bool) int {
	log := newCommandLogger(asJSON)
	protectProcess(log)
	return show(run(log, event, nil), asJSON)
}

func inspect(event hook.Event, asJSON bool) int {
	log := newCommandLogger(asJSON)
	defer log.limit(event.Trigger, event.Limit()).Stop()
	protectProcess(log)
	runner := hook.Runner{Version: versionNumber, Directory: journal.Directory, Warn: func(err error) { log.Warn(err) }, Named: log.named, Machine: machine(log), Protect: sealed(nil)}
	rep, err := runner.Inspect(context.Background(), event)
	if err != nil {
		log.end(event, rep, err)
	}
	return show(rep, asJSON)
}

// machine describes this machine's CRIU.
func machine(log *logger) *forecast.Machine {
	criu, err := install.InspectCRIU(context.Background(), "/")
	if err != nil {
		log.Warn(err)
	}
	m := &forecast.Machine{ForceIrmap: criu.ForceIrmap, TooOld: criu.Found && criu.Version.Less(install.ScriptVersion)}
	if criu.Found {
		m.CRIU = criu.Version.String()
	}
	return m
}

// show prints a report and returns the exit status that goes with it. An error before
// anything was found is no table.
func show(rep *report.Report, asJSON bool) int {
	var err error
	switch {
	case asJSON:
		err = printJSON(rep)
	case rep.Error != "" && len(rep.Mounts) == 0:
		fmt.Fprintf(os.Stderr, "%s: %s\n", programName, printable(rep.Error))
	default:
		err = rep.Table(os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", programName, err)
		return exitFailed
	}
	if rep.NoProcess {
		return exitUsage
	}
	return rep.Outcome.ExitStatus()
}
