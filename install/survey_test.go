package install

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/manifests"
)

// TestSurvey surveys a machine with valid and invalid files of each kind.
func TestSurvey(t *testing.T) {
	root := machine(t, version4, map[string]string{
		CRIUFile:                                       "action-script=/usr/bin/other\naction-script /absent\naction-script rel\n",
		"/etc/criu/runc.conf":                          "action-script \"/usr/libexec/oci/hooks.d/autofs-restore-hook\"\n",
		"/etc/criu/crun.conf":                          "a\x00b",
		"/root/.criu/default.conf":                     "action-script " + script + "\naction-script /opt/autofs-restore-hook-action-script\n",
		HooksDirectory + "/other.json":                 `{"hook": {"path": "/usr/bin/other"}}`,
		HooksDirectory + "/bad.json":                   "{",
		HooksDirectory + "/readme":                     "{",
		HooksDirectory + "/autofs-restore-hook-x.json": "{}",
		BaseSpec:         `{"hooks": {"createRuntime": [{"path": "/usr/bin/other"}, {"path": "/opt/autofs-restore-hook"}]}}`,
		"/usr/bin/other": "#!/bin/sh\n",
	})
	copyFile(t, standIn, root+"/usr/bin/runc")
	_ = os.MkdirAll(root+"/usr/libexec/oci/hooks.d", 0o755)
	copyFile(t, program, root+"/usr/libexec/oci/hooks.d/autofs-restore-hook")
	for _, program := range []string{own, "/opt/autofs-restore-hook"} {
		f, err := manifests.ActionScript(program)
		if err != nil {
			t.Fatal(err)
		}
		put(t, root+f.Name, f.Data)
		_ = os.Chmod(root+f.Name, 0o755)
	}
	s, err := NewSurvey(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%+v", *s)
	for _, want := range []string{
		"{Name:criu Path:/usr/sbin/criu Version:4.1.1 Problem: RestoreOff:}",
		"{Name:runc Path:/usr/bin/runc Version:0.0 Problem:",
		"{File:/etc/criu/default.conf Program:/absent}", "Program:rel}",
		"{File:/etc/criu/runc.conf Program:/usr/libexec/oci/hooks.d/autofs-restore-hook}",
		"crun.conf: not a text file",
		"{File:" + HooksDirectory + "/bad.json Program: Problem:unexpected end of JSON input}",
		"{File:" + HooksDirectory + "/autofs-restore-hook-x.json Program: Problem:it names no program}",
		"{File:" + BaseSpec + " Program:/opt/autofs-restore-hook Problem:}",
		"{Path:/usr/bin/other Problem:it is not executable IsProgram:false Version: Calls:}",
		"{Path:/absent Problem:it does not exist IsProgram:false Version: Calls:}",
		"{Path:/usr/libexec/oci/hooks.d/autofs-restore-hook Problem: IsProgram:true Version:development Calls:}",
		"{Path:" + script + " Problem: IsProgram:true Version:development Calls:" + own + "}",
		"{Path:/opt/autofs-restore-hook-action-script Problem:it does not exist IsProgram:false Version: Calls:/opt/autofs-restore-hook}",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if err := os.Remove(root + shell); err != nil {
		t.Fatal(err)
	}
	if s, err := NewSurvey(context.Background(), root); err != nil || s.Target(script).Problem != "it needs /bin/sh, which is missing" {
		t.Errorf("without a shell: %+v, %v", s.Target(script), err)
	}
	if strings.Contains(got, "other.json") || strings.Contains(got, "readme") || s.Installed {
		t.Errorf("%s", got)
	}
}
