// Package manifests holds the files that make container engines call the program: the one
// source for the install command, for packages and for the documentation.
//
//	criu/action-script.sh                           the script that CRIU calls, next to the program
//	criu/default.conf                               a line for /etc/criu/default.conf
//	hooks.d/autofs-restore-hook-createRuntime.json  for hooks.d of podman and CRI-O
//	hooks.d/autofs-restore-hook-poststart.json      the same, for another stage
//
// They are templates: [Placeholder] stands for the path of the called program.
//
// # A shell script for CRIU
//
// CRIU calls its action script at every stage of every checkpoint and restore. The script
// exits at the stages without work, for which it needs one process. The program is
// written in Go and needs threads too, for which runc's control group may have no room
// left, and CRIU takes an action script that fails for one that vetoes the restore. If the
// program is missing, the script reports that and the restore continues.
//
// # The line for CRIU
//
// Install appends it to a file that other tools edit as well, and removes it by its exact
// text: so it is one line without a comment. CRIU before 3.19 aborts every checkpoint and
// restore of runc if a configuration file has an action script: do not add it there.
//
// # One hooks.d file per stage
//
// A hooks.d file has one list of arguments for all of its stages (oci-hooks(5)), and the
// program learns the stage from its argument only: the container state on standard input
// does not have it. So each stage has its own file.
//
// Install the program before these files, and remove them before the program: an OCI
// runtime does not start a container whose hook is missing.
package manifests

import (
	"embed"
	"fmt"
	"path"
	"strings"
)

// Program is the default path of the program.
const Program = "/usr/libexec/oci/hooks.d/autofs-restore-hook"

// Placeholder stands for the path of the program in the templates.
const Placeholder = "@PROGRAM@"

//go:embed criu hooks.d
var templates embed.FS

// File is a file to install.
type File struct {
	// Name is the base name, by which install recognises the file.
	Name string
	Data string
}

// ActionScriptLine returns the line for /etc/criu/default.conf, with its newline,
// that makes CRIU call a file: the action script, or the program where there is
// no shell.
func ActionScriptLine(path string) (string, error) {
	return render("criu/default.conf", path)
}

// ActionScript returns the action script for a program. Its name is a path.
func ActionScript(program string) (File, error) {
	text, err := render("criu/action-script.sh", program)
	return File{Name: program + actionScriptSuffix, Data: text}, err
}

const actionScriptSuffix = "-action-script"

// CalledBy returns the program that a file calls, if it has the name and the text of an
// action script of any version. The script may have been edited.
func CalledBy(name, text string) (program string, ok bool) {
	program, ok = strings.CutSuffix(name, actionScriptSuffix)
	return program, ok && strings.Contains(text, "\nprogram="+program+"\n")
}

// Hooks returns the hooks.d files, in the order of their names.
func Hooks(program string) ([]File, error) {
	entries, err := templates.ReadDir("hooks.d")
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		text, err := render("hooks.d/"+e.Name(), program)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: e.Name(), Data: text})
	}
	return files, nil
}

func render(template, program string) (string, error) {
	if err := CheckPath(program); err != nil {
		return "", err
	}
	data, err := templates.ReadFile(template)
	return strings.ReplaceAll(string(data), Placeholder, program), err
}

// pathBytes need no quoting in JSON, the shell and CRIU's configuration, which cannot
// express a path with blanks, quotes or # (criu/config.c).
const pathBytes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./+-"

// CheckPath returns an error for a path of the program that the files cannot express.
func CheckPath(program string) error {
	if !path.IsAbs(program) || path.Clean(program) != program || strings.Trim(program, pathBytes) != "" {
		return fmt.Errorf("path of the program %q: want an absolute path of letters, digits and _./+- only, without // and .. in it", program)
	}
	return nil
}
