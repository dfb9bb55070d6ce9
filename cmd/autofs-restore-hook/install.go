package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

const (
	aboutInstall = `Put the program at PREFIX/libexec/oci/hooks.d/autofs-restore-hook and make CRIU call it. Installing is idempotent. On an error the files are as before.

Without --engine, a shell script beside the program calls it at the stages where there is work, and one action-script line for it is appended to /etc/criu/default.conf. Every CRIU of this machine reads that file, whatever started it, unless it is started with --no-default-config or sees another /etc, as that of LXD's snap does. CRIU before 3.19 would abort every checkpoint and restore of runc with such a line: there it is refused.

The engines podman and crio get OCI hooks, for containers that are created from now on, of runc with a CRIU before 3.19. For containerd a base specification is written, and two lines to add to its configuration are printed. all is every engine that is found.`
	aboutUninstall = `Remove what install has written, for every engine or for those of --engine, unless it was changed since. The program stays as long as something calls it, and program and action script stay as long as a CRIU runs; the exit status is 1 then, and a later uninstall removes them. /etc/autofs-restore-hook.conf is kept.`
)

// engines is the value of --engine.
type engines struct {
	options *install.Options
	text    string
}

func (e *engines) String() string { return e.text }
func (e *engines) Type() string   { return "LIST" }

func (e *engines) Set(text string) (err error) {
	e.text = text
	e.options.Engines, e.options.All, err = install.ParseEngines(text)
	return err
}

// engineWords are what --engine takes, for the completions.
var engineWords = []string{string(install.CRIU), string(install.Podman), string(install.CRIO), string(install.Containerd), "all"}

// installCommand is install or uninstall.
func installCommand(name string) *command {
	c := newCommand(name, "", "put the program in place and make CRIU, or other engines, call it", aboutInstall)
	do := install.Install
	if name == "uninstall" {
		c = newCommand(name, "", "undo install", aboutUninstall)
		do = install.Uninstall
	}
	var o install.Options
	c.options.Var(&engines{options: &o}, "engine", "for which engines, with commas: criu, podman, crio, containerd or all")
	c.options.StringVar(&o.Root, "root", "/", "work on the files below `DIR`, and never leave it")
	c.options.StringVar(&o.Prefix, "prefix", "/usr", "where the program belongs, a `DIR` below the root")
	if name == "install" {
		c.options.BoolVar(&o.ForceIrmap, install.ForceIrmap, false, "also set this option of CRIU: a systemd container can then be restored on another root filesystem, but a dump in which a watched file has no path may fail")
	}
	c.options.BoolVar(&o.DryRun, "dry-run", false, "show the changes, and make none")
	c.run = func(words []string) (int, error) {
		switch {
		case len(words) > 0:
			return 0, fmt.Errorf("%q: %w", words[0], errNoArguments)
		case o.Root == "" || o.Prefix == "":
			return 0, errors.New("--root and --prefix must not be empty")
		}
		result, err := do(context.Background(), o)
		if err != nil {
			c.complain(err)
			return exitFailed, nil
		}
		return showInstalled(c, o, result), nil
	}
	return c
}

func showInstalled(command *command, o install.Options, r *install.Result) int {
	for _, c := range r.Changes {
		switch {
		case o.DryRun:
			fmt.Print(c.Diff)
		case c.Removed:
			fmt.Println("removed", c.Path)
		default:
			fmt.Println("wrote", c.Path)
		}
	}
	if len(r.Changes) == 0 {
		fmt.Println("nothing to change")
	}
	for _, n := range r.Notes {
		fmt.Println("note:", n)
	}
	for _, k := range r.Kept {
		command.complain(fmt.Errorf("kept: %s", k))
	}
	if len(r.Kept) > 0 {
		return exitFailed
	}
	return exitDone
}
