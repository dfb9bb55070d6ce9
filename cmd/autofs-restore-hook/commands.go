package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/forecast"
	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

// versionNumber is set by the linker.
var versionNumber = "development"

const usage = `autofs-restore-hook makes automounts work again in a container that CRIU has restored.

Called by people:
  inspect PID [--json]                  show every automount of a container, its master, and what would be done;
                                        and what CRIU would fail at in a checkpoint, or in a restore elsewhere
  repair PID [--json] [--strategy auto|reexec|restart] [--kill-waiters]
                                        repair them; end processes that wait on an automount and cannot be released
  install   [--engine criu|podman|crio|containerd|all] [--force-irmap] [--root DIR] [--prefix DIR] [--dry-run]
  uninstall [the same, without --force-irmap]
                                        make engines call the program, or undo that; without --engine what the
                                        machine needs; --dry-run shows the changes; with --force-irmap checkpoints
                                        can be restored on other root filesystems (it changes every dump)
  doctor [--json]                       whether it will be called, and work, on this machine; exit status
                                        0 all is well, 1 warnings, 2 failures
  version [--json]
  help

Called by programs:
  autofs-restore-hook               as a CRIU action script (environment variable CRTOOLS_SCRIPT_ACTION)
  autofs-restore-hook STAGE         as an OCI hook, with the container state on standard input

PID is the container's first process. Exit status: 0 done or nothing to do, 1 failed, 2 wrong usage or
unreadable input, 3 partly repaired. As hook and action script 0 whatever happened, so that a repair never
costs a restore, unless /etc/autofs-restore-hook.conf says "strict = true".
Reports: /run/autofs-restore-hook/reports/CONTAINER.json
`

// target reads the arguments that inspect and repair share.
func target(name string, args []string) (e hook.Event, asJSON bool, ok bool) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&asJSON, "json", false, "")
	strategy := string(hook.Auto)
	if name == "repair" {
		flags.StringVar(&strategy, "strategy", strategy, "")
		flags.BoolVar(&e.KillWaiters, "kill-waiters", false, "")
	}
	words, err := parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(os.Stderr, usage)
		return e, false, false
	case err != nil:
		fmt.Fprintf(os.Stderr, "autofs-restore-hook %s: %v\n", name, err)
		return e, false, false
	case len(words) != 1:
		fmt.Fprintf(os.Stderr, "autofs-restore-hook %s: %v\n", name, errOneProcess)
		return e, false, false
	}
	pid, err := strconv.Atoi(words[0])
	if err != nil || pid <= 0 {
		fmt.Fprintf(os.Stderr, "autofs-restore-hook %s: %q: %v\n", name, words[0], errOneProcess)
		return e, false, false
	}
	if !hook.Strategy(strategy).Valid() {
		fmt.Fprintf(os.Stderr, "autofs-restore-hook %s: strategy %q: want auto, reexec or restart\n", name, strategy)
		return e, false, false
	}
	return hook.Event{
		Trigger: "command:" + name, Stage: hook.Repair, PID: pid, Everyone: true,
		Strategy: hook.Strategy(strategy), KillWaiters: e.KillWaiters,
	}, asJSON, true
}

// parse reads flags before and after the other arguments, and returns those.
func parse(flags *flag.FlagSet, args []string) ([]string, error) {
	var words []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return words, nil
		}
		words = append(words, flags.Arg(0))
		args = flags.Args()[1:]
	}
}

func repair(args []string) int {
	event, asJSON, ok := target("repair", args)
	if !ok {
		return exitUsage
	}
	log := newLogger()
	closeToOthers(log)
	return show(run(log, event, nil), asJSON)
}

func inspect(args []string) int {
	event, asJSON, ok := target("inspect", args)
	if !ok {
		return exitUsage
	}
	log := newLogger()
	defer log.limit(event.Trigger).Stop()
	closeToOthers(log)
	runner := hook.Runner{Version: versionNumber, Directory: hook.Directory, Warn: func(err error) { log.Warn(err) }, Machine: machine(log), Protect: sealed(nil)}
	report, err := runner.Inspect(context.Background(), event)
	if status := show(report, asJSON); err != nil {
		log.Error(err)
		return status
	}
	return exitDone
}

// machine is what is known of this machine's CRIU.
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

// show prints a report and returns the exit status that goes with it.
func show(report *hook.Report, asJSON bool) int {
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(report); err != nil {
			fmt.Fprintf(os.Stderr, "autofs-restore-hook: %v\n", err)
			return exitFailed
		}
	} else if err := report.Table(os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "autofs-restore-hook: %v\n", err)
		return exitFailed
	}
	if report.Unreadable {
		return exitUsage
	}
	return report.Outcome.ExitStatus()
}

func version(args []string) int {
	if len(args) == 1 && args[0] == "--json" {
		fmt.Printf("{\"version\":%q,\"go\":%q,\"architecture\":%q}\n", versionNumber, runtime.Version(), runtime.GOARCH)
		return exitDone
	}
	if len(args) != 0 {
		fmt.Fprint(os.Stderr, usage)
		return exitUsage
	}
	fmt.Printf("autofs-restore-hook %s (%s, %s)\n", versionNumber, runtime.Version(), runtime.GOARCH)
	return exitDone
}
