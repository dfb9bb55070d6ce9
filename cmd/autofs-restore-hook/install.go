package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

// installer handles install and uninstall.
func installer(name string, args []string) int {
	fail := func(err error) int {
		fmt.Fprintf(os.Stderr, "autofs-restore-hook %s: %v\n", name, err)
		return exitUsage
	}
	var o install.Options
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	engine := flags.String("engine", "", "")
	flags.StringVar(&o.Root, "root", "/", "")
	flags.StringVar(&o.Prefix, "prefix", "/usr", "")
	if name == "install" {
		flags.BoolVar(&o.ForceIrmap, install.ForceIrmap, false, "")
	}
	flags.BoolVar(&o.DryRun, "dry-run", false, "")
	words, err := parse(flags, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(os.Stderr, usage)
		return exitUsage
	case err != nil:
		return fail(err)
	case len(words) > 0:
		return fail(fmt.Errorf("unknown argument %q", words[0]))
	case o.Root == "" || o.Prefix == "":
		return fail(errors.New("root and prefix must not be empty"))
	}
	if *engine != "" {
		if o.Engines, o.All, err = install.ParseEngines(*engine); err != nil {
			return fail(err)
		}
	}
	do := install.Install
	if name == "uninstall" {
		do = install.Uninstall
	}
	result, err := do(context.Background(), o)
	if err != nil {
		fail(err)
		return exitFailed
	}
	return showInstalled(name, o, result)
}

func showInstalled(name string, o install.Options, r *install.Result) int {
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
		fmt.Fprintf(os.Stderr, "autofs-restore-hook %s: kept: %s\n", name, k)
	}
	if len(r.Kept) > 0 {
		return exitFailed
	}
	return exitDone
}
