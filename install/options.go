package install

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// Engine is something that can be made to call the program.
type Engine string

// The engines. [CRIU] serves all that use CRIU, whatever they are called.
const (
	CRIU       Engine = "criu"
	Podman     Engine = "podman"
	CRIO       Engine = "crio"
	Containerd Engine = "containerd"
)

var engines = []Engine{CRIU, Podman, CRIO, Containerd}

// ParseEngines reads a list of names with commas. "all" is every engine that is
// found on the machine: see [Options].
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

// Options say what to install, or to remove. The zero value is what the machine
// needs.
type Options struct {
	// Root is the folder that holds the file system; "" is "/".
	Root string
	// Prefix is where the program belongs, below Root: it becomes
	// PREFIX/libexec/oci/hooks.d/autofs-restore-hook. "" is "/usr".
	Prefix string
	// Engines are those to be installed for, found or not. None, without All: of
	// an installation CRIU if it is found, of a removal every one.
	Engines []Engine
	// All adds every engine that is found on the machine.
	All bool
	// ForceIrmap is to add CRIU's option of that name to its configuration: see
	// [ForceIrmap].
	ForceIrmap bool
	// DryRun is to plan only.
	DryRun bool
	// Program is the file to be installed, outside Root; "" is the running one.
	Program string
}

// Result is what was done, or what a dry run would do.
type Result struct {
	// Changes are in the order in which they are made.
	Changes []Change
	// Notes are what a person should know, one line each or a few with newlines.
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

// RecordFile notes what was installed.
const RecordFile = "/var/lib/autofs-restore-hook/installed.json"

const (
	programName = "autofs-restore-hook"
	// CRIUFile is the configuration that every CRIU reads.
	CRIUFile = "/etc/criu/default.conf"
)

// ErrNothing is the error of an installation that finds nothing to install for.
var ErrNothing = errors.New("nothing was installed")

// Install installs the program for the engines. Installing twice is the same as
// once. On an error the files are as before.
func Install(ctx context.Context, o Options) (*Result, error) {
	return run(ctx, o, (*plan).install)
}

// Uninstall removes what Install has written.
func Uninstall(ctx context.Context, o Options) (*Result, error) {
	return run(ctx, o, (*plan).uninstall)
}

func run(ctx context.Context, o Options, draw func(*plan, context.Context) error) (*Result, error) {
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
	if err := draw(p, ctx); err != nil {
		return nil, err
	}
	if !o.DryRun {
		if err := p.apply(); err != nil {
			return nil, err
		}
	}
	return p.result(), nil
}
