package agent

import (
	"strconv"
	"strings"
	"testing"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestOtherUsers has processes of other users than root in the container, one in a
// mount namespace of its own: the capabilities of the DaemonSet are enough to find
// and to repair what they see. The processes start after the restore, since CRIU
// on these machines cannot restore another user's.
func TestOtherUsers(t *testing.T) {
	d := startContainerd(t)
	c := start(t, d, lab.Options{Args: []string{"sh", "-ec", "mount --make-rshared / && exec /sbin/init"}, Files: map[string]string{
		"/etc/systemd/system/other.service":         "[Service]\nUser=nobody\nExecStart=/bin/sleep infinity\n",
		"/etc/systemd/system/other-private.service": "[Service]\nUser=nobody\nPrivateMounts=yes\nExecStart=/bin/sleep infinity\n",
	}})
	c.Populate(t)
	c.countMounts(t)
	c.checkpoint(t)
	lab.InstallGroupsOnly(t, c.groups)
	c.restore(t)
	c.Run(t, "systemctl", "start", "other.service", "other-private.service")
	inside := strings.TrimSpace(c.Run(t, "systemctl", "show", "--property=MainPID", "--value", "other-private.service"))
	if _, err := strconv.Atoi(inside); err != nil {
		t.Fatalf("the service's process: %v", err)
	}
	other := *c.Container
	other.PID = c.HostPID(t, inside)
	c.note(t)
	p := newPod(t, d, withoutInstall)
	p.start(t)
	p.ready(t)
	s := p.counted(t, 1)
	if s.Sum("restores_total", "by=agent,outcome=repaired") != 1 || s["missed_restores_total"] != 1 ||
		s.Sum("mounts_total", "outcome=unrepaired") != 0 {
		t.Errorf("%v", s)
	}
	c.checkIdentical(t)
	other.CheckAnswers(t, lab.Accesses)
	c.CheckAnswers(t, lab.Accesses)
}
