// Package manifests holds the files that make container engines call the
// program: the one source for installing, for packages and for the README.
//
//	criu/action-script.sh                           what CRIU calls, beside the program
//	criu/default.conf                               a line for /etc/criu/default.conf
//	hooks.d/autofs-restore-hook-createRuntime.json  for podman's and CRI-O's hooks.d
//	hooks.d/autofs-restore-hook-poststart.json      the same, for another stage
//
// They are templates: [Placeholder] stands for the path of what is called.
//
// # A shell script for CRIU
//
// CRIU calls its action script at every stage of every checkpoint and restore.
// The script ends at stages where there is no work, for which it needs one
// process: the program, like all that are written in Go, needs threads too, which
// runc's control group may not have left, and CRIU takes an action script that
// fails for one that forbids the restore. Where the program is gone, it says so
// and the restore goes on.
//
// # The line for CRIU
//
// It is appended to a file that other tools write to as well, and removed by
// its exact text: so it is one line without a comment. CRIU before 3.19 ends
// every checkpoint and restore that runc asks for when it finds an action
// script in a configuration file: do not append it there.
//
// # One hooks.d file for each stage
//
// A hooks.d file has one list of arguments for all of its stages
// (oci-hooks(5)), and the program learns the stage from its argument only: the
// container state on standard input does not hold it. So each stage has a file
// of its own.
//
// The program has to be in place before these files are, and they have to be
// gone before the program is: an OCI runtime does not start a container whose
// hook it cannot run.
package manifests

import (
	_ "embed" // templates
	"fmt"
	"path"
	"strings"
)

// Program is where the program belongs unless somebody wants it elsewhere.
const Program = "/usr/libexec/oci/hooks.d/autofs-restore-hook"

// Placeholder stands for the path of the program in the templates.
const Placeholder = "@PROGRAM@"

// Strings, not an embed.FS: that would make the program 20 KB larger.
var (
	//go:embed criu/action-script.sh
	actionScript string
	//go:embed criu/default.conf
	configuration string
	//go:embed hooks.d/autofs-restore-hook-createRuntime.json
	createRuntime string
	//go:embed hooks.d/autofs-restore-hook-poststart.json
	poststart string
)

// File is a file to be installed.
type File struct {
	// Name is the base name. It tells the files of this program from others.
	Name string
	Data string
}

// ActionScriptLine returns the line for /etc/criu/default.conf, with its newline,
// that makes CRIU call a file: the action script, or the program where there is
// no shell.
func ActionScriptLine(path string) (string, error) {
	return render(configuration, path)
}

// ActionScript returns the action script for a program. Its name is a path.
func ActionScript(program string) (File, error) {
	text, err := render(actionScript, program)
	return File{Name: program + actionScriptSuffix, Data: text}, err
}

const actionScriptSuffix = "-action-script"

// CalledBy returns the program that an action script calls, of whatever version and
// whoever has edited it, if it has the name and the text of one.
func CalledBy(name, text string) (program string, ok bool) {
	program, ok = strings.CutSuffix(name, actionScriptSuffix)
	return program, ok && strings.Contains(text, "\nprogram="+program+"\n")
}

// Hooks returns the hooks.d files, in the order of their names.
func Hooks(program string) ([]File, error) {
	files := []File{
		{Name: "autofs-restore-hook-createRuntime.json", Data: createRuntime},
		{Name: "autofs-restore-hook-poststart.json", Data: poststart},
	}
	for i := range files {
		var err error
		if files[i].Data, err = render(files[i].Data, program); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func render(template, program string) (string, error) {
	if err := CheckPath(program); err != nil {
		return "", err
	}
	return strings.ReplaceAll(template, Placeholder, program), nil
}

// pathBytes need no quoting, neither in JSON nor in CRIU's configuration, which
// cannot name a path with blanks, quotes or # at all (criu/config.c).
const pathBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./+-"

// CheckPath returns an error for a path of the program that the files cannot
// name.
func CheckPath(program string) error {
	if !path.IsAbs(program) || path.Clean(program) != program || strings.Trim(program, pathBytes) != "" {
		return fmt.Errorf("path of the program %q: want an absolute path of letters, digits and _./+- only, without // and .. in it", program)
	}
	return nil
}
