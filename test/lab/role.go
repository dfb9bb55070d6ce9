package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// RoleProgram is the path of the test binary in a container with [Options].Roles.
const RoleProgram = "/usr/local/bin/lab-role"

// roles are the functions of the test binary inside a container.
var roles = map[string]func(args []string) error{
	"touch":     runToucher,
	"stopwatch": runStopwatch,
	"serve":     runMaster,

	"hostile-init": runHostileInit,
	"hold-pipe":    runHoldPipe,
	"listen":       runListen,
	"swap":         runSwap,
	"snoop":        runSnoop,
	"mount-many":   runMountMany,
	"watch-gone":   runWatchGone,
	"units":        runUnits,
}

// roleVariable is in the environment of a test binary that is executed by its descriptor
// and not as [RoleProgram].
const roleVariable = "LAB_ROLE"

// init carries out the role in the arguments, if there is one, and ends the process.
func init() {
	named := filepath.Base(os.Args[0]) == filepath.Base(RoleProgram) || os.Getenv(roleVariable) != ""
	if !named || len(os.Args) < 2 {
		return
	}
	role := roles[os.Args[1]]
	if role == nil {
		fmt.Fprintf(os.Stderr, "no role %q\n", os.Args[1])
		os.Exit(2)
	}
	if err := role(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// installRoles copies the running test binary into a container's root folder.
func installRoles(root string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	path := filepath.Join(root, RoleProgram)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
