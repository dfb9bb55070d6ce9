package install

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// Engine is a container engine, or CRIU, that Install makes call the program.
type Engine string

// The engines. [CRIU] covers every engine that restores with CRIU.
const (
	CRIU       Engine = "criu"
	Podman     Engine = "podman"
	CRIO       Engine = "crio"
	Containerd Engine = "containerd"
)

var engines = []Engine{CRIU, Podman, CRIO, Containerd}

// ParseEngines parses a comma-separated list of names. "all" stands for every engine on
// the machine: see [Options].
func ParseEngines(text string) (list []Engine, all bool, err error) {
	for word := range strings.SplitSeq(text, ",") {
		e := Engine(word)
		switch e {
		case CRIU, Podman, CRIO, Containerd:
			list = append(list, e)
		case "all":
			all = true
		default:
			return nil, false, fmt.Errorf("engine %q: want criu, podman, crio, containerd or all", word)
		}
	}
	return list, all, nil
}

// Options select what to install or to remove. The zero value suits most machines.
type Options struct {
	// Root is the root directory of the machine; "" is "/".
	Root string
	// Prefix is the directory of the program, below Root: it becomes
	// PREFIX/libexec/oci/hooks.d/autofs-restore-hook. "" is "/usr".
	Prefix string
	// Engines are installed for even if they are absent. Without Engines and All, an
	// installation is for CRIU if there is one, a removal for every engine.
	Engines []Engine
	// All adds every engine on the machine.
	All bool
	// ForceIrmap adds CRIU's option [ForceIrmap] to its configuration.
	ForceIrmap bool
	// DryRun plans only.
	DryRun bool
	// Program is the file to install, outside Root; "" is the running program.
	Program string
}

// Result lists what was done, or what a dry run would do.
type Result struct {
	// Changes are in the order in which they are made.
	Changes []Change
	// Notes are for the administrator, each of one or more lines.
	Notes []string
	// Kept is what could not be removed, with the reason and the next step.
	Kept []string
}

// Change is a file that was written or removed.
type Change struct {
	Path    string
	Removed bool
	// Diff is the change in the unified format, or one line for a program.
	Diff string
}

// RecordFile records what was installed.
const RecordFile = "/var/lib/autofs-restore-hook/installed.json"

const (
	programName = "autofs-restore-hook"
	// CRIUFile is the configuration that every CRIU reads.
	CRIUFile = "/etc/criu/default.conf"
)

// ErrNothingInstalled is the error of an installation without an engine to install for.
var ErrNothingInstalled = errors.New("nothing was installed")

// Install installs the program for the engines. It is idempotent. On an error the files
// are as before.
func Install(ctx context.Context, o Options) (*Result, error) {
	return run(ctx, o, (*plan).install)
}

// Uninstall removes what Install wrote.
func Uninstall(ctx context.Context, o Options) (*Result, error) {
	return run(ctx, o, (*plan).uninstall)
}

func run(ctx context.Context, o Options, makePlan func(*plan, context.Context) error) (*Result, error) {
	if o.Prefix == "" {
		o.Prefix = "/usr"
	}
	program := strings.TrimSuffix(o.Prefix, "/") + "/libexec/oci/hooks.d/" + programName
	if err := manifests.CheckPath(program); err != nil {
		return nil, fmt.Errorf("prefix %q: %w", o.Prefix, err)
	}
	t, err := openTree(o.Root)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if !o.DryRun {
		if err := t.lock(ctx); err != nil {
			return nil, err
		}
	}
	p := &plan{options: o, tree: t}
	if err := p.setProgram(program); err != nil {
		return nil, err
	}
	if p.record, err = readRecord(t); err != nil {
		return nil, err
	}
	if err := makePlan(p, ctx); err != nil {
		return nil, err
	}
	if !o.DryRun {
		if err := p.apply(); err != nil {
			return nil, err
		}
	}
	return p.result(), nil
}
