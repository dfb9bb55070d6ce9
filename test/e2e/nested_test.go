package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// sharedService has its own mount namespace to which mounts propagate.
const sharedService = "mount-flags-shared"

// nestedServices have their own mount namespaces.
var nestedServices = []string{sharedService, "private-mounts", "mount-flags-private"}

// nestedFiles create those namespaces when all automounts exist: they show those of
// automount, too, and no mount that is made after the boot.
func nestedFiles() map[string]string {
	files := make(map[string]string)
	for _, name := range nestedServices {
		files["/etc/systemd/system/"+name+".service.d/late.conf"] = "[Unit]\nAfter=autofs.service\n[Service]\nType=exec\n"
	}
	return files
}

// TestNestedNamespaces repairs where the numbers are occupied, and makes accesses from
// the nested mount namespaces of the container's services: each has the same result as
// before the checkpoint.
func TestNestedNamespaces(t *testing.T) {
	requireHook(t)
	s := take(t, lab.Options{Files: nestedFiles()})
	units := s.units

	// The control: another container, which is not checkpointed.
	control := lab.Start(t, lab.Options{Files: nestedFiles()})
	control.Populate(t)
	want := touchNested(t, control, control.Units(t))
	control.Kill(t)
	t.Logf("without a checkpoint:\n%s", strings.Join(want, "\n"))

	for _, cure := range []string{"reexecuted", "restarted"} {
		t.Run(cure, func(t *testing.T) {
			r := restoreTo(t, s, cure, nil)
			checkReport(t, r.ReadReport(t), r)
			checkCure(t, r.ReadReport(t), cure)
			checkOneSuperblock(t, r, units)
			for _, change := range lab.Changes(s.covers, nestedCovers(t, r.Container, units)) {
				t.Errorf("covers: %s", change)
			}
			for _, change := range lab.Changes(want, touchNested(t, r.Container, units)) {
				t.Errorf("an access from a nested namespace: %s", change)
			}
			checkOneSuperblock(t, r, units)
			r.CheckAnswers(t, lab.Accesses)
			checkNoWaiters(t, r.Container)
			r.Kill(t) // the next one has the same name
		})
	}
}

// checkOneSuperblock checks that every automount of the nested namespaces has the
// superblock of the main one, and is not catatonic.
func checkOneSuperblock(t *testing.T, r *lab.Restored, units map[string]lab.Unit) {
	t.Helper()
	main := lab.Autofs(t, r.PID)
	for _, name := range nestedServices {
		own := lab.Autofs(t, r.HostPID(t, units[name+".service"].MainPID))
		for path, m := range main {
			switch {
			case own[path] == nil:
				t.Errorf("%s.service: no autofs at %s", name, path)
			case own[path].Minor != m.Minor:
				t.Errorf("%s.service: %s is device 0:%d, in the main namespace 0:%d", name, path, own[path].Minor, m.Minor)
			case strings.Contains(own[path].VFSOptions, "fd=-1"):
				t.Errorf("%s.service: %s is catatonic", name, path)
			}
		}
		for path := range own {
			if main[path] == nil {
				t.Errorf("%s.service: %s is an autofs only in this namespace", name, path)
			}
		}
	}
}

// nestedCovers describes the covers of automounts in the nested namespaces.
func nestedCovers(t *testing.T, c *lab.Container, units map[string]lab.Unit) []string {
	t.Helper()
	var list []string
	for _, name := range nestedServices {
		pid := c.HostPID(t, units[name+".service"].MainPID)
		for _, path := range []string{lab.Idle, lab.Blank, lab.Binfmt, lab.Covered, lab.Stacked, lab.Direct, lab.Direct2, lab.Indirect, lab.Indirect + "/active"} {
			list = append(list, fmt.Sprintf("%s: %s: %s", name, path, lab.Stack(t, pid, path)))
		}
	}
	return list
}

// touchNested reads every access from the nested namespaces, one of these after the
// other, and describes the results. Where mounts do not propagate, automount's direct
// maps are left out: such an access makes the kernel request repeatedly, and automount
// 5.1.8 sometimes hangs in its own answer, without any checkpoint.
func touchNested(t *testing.T, c *lab.Container, units map[string]lab.Unit) []string {
	t.Helper()
	var list []string
	for _, name := range nestedServices {
		pid := c.HostPID(t, units[name+".service"].MainPID)
		results := make(chan string)
		accesses := lab.Accesses
		if name != sharedService {
			accesses = slices.DeleteFunc(slices.Clone(accesses), func(a lab.Access) bool {
				return strings.HasPrefix(a.Path, "/direct/")
			})
		}
		for _, a := range accesses {
			go func() { results <- fmt.Sprintf("%s: %s: %s", name, a.Path, touchIn(pid, a)) }()
		}
		for range accesses {
			list = append(list, <-results)
		}
	}
	slices.Sort(list)
	return list
}

// touchIn reads a file in all namespaces of a process.
func touchIn(pid int, a lab.Access) string {
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--",
		"cat", a.Path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	file, err := os.CreateTemp("", "nested")
	if err != nil {
		return err.Error()
	}
	defer os.Remove(file.Name())
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-time.After(lab.AnswerLimit):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		return "hangs"
	}
	text, readErr := os.ReadFile(file.Name())
	switch {
	case readErr != nil:
		return readErr.Error()
	case err != nil:
		parts := strings.Split(strings.TrimSpace(string(text)), ": ")
		return "fails: " + parts[len(parts)-1]
	case string(bytes.TrimSpace(text)) == a.Content:
		return "served"
	}
	return "wrong content"
}
