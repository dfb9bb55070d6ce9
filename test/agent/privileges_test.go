package agent

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// TestPrivileges shows that the DaemonSet has no capability too many: without
// any one of them no repair is possible. The other tests show that it has
// enough.
func TestPrivileges(t *testing.T) {
	d := startContainerd(t)
	all := daemonSet(t, "containerd").Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add
	if err := readyWith(t, d, all); err != nil {
		t.Fatalf("with %q: %v", all, err)
	}
	for _, without := range all {
		err := readyWith(t, d, slices.DeleteFunc(slices.Clone(all), func(c corev1.Capability) bool { return c == without }))
		if err == nil {
			t.Errorf("without %s it works, too: the DaemonSet need not have it", without)
		}
		t.Logf("without %s: %v", without, err)
	}
}

// readyWith starts an agent with these capabilities. The error is that of one
// that does not become ready.
func readyWith(t *testing.T, d *daemon, caps []corev1.Capability) error {
	t.Helper()
	p := newPod(t, d, func(s *corev1.PodSpec) {
		withoutInstall(s)
		s.Containers[0].SecurityContext.Capabilities.Add = caps
	})
	p.start(t)
	defer p.stop(t, syscall.SIGKILL)
	deadline := time.Now().Add(2 * time.Second)
	for {
		status, body := p.get("/readyz")
		if status == http.StatusOK {
			return nil
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(p.log)
			return fmt.Errorf("not ready: %s\n%s", body, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestInThePod shows why repairs do not run in the pod: with all capabilities
// that the agent has, and with /dev/autofs mounted, the program may not open it. The
// doctor tells.
func TestInThePod(t *testing.T) {
	d := startContainerd(t)
	kind := corev1.HostPathCharDev
	p := newPod(t, d, func(s *corev1.PodSpec) {
		s.Volumes = append(s.Volumes, corev1.Volume{Name: "autofs", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: "/dev/autofs", Type: &kind},
		}})
		s.Containers[0].VolumeMounts = append(s.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "autofs", MountPath: "/dev/autofs"})
	})
	p.command = []string{"/usr/bin/autofs-restore-hook", "doctor"}
	p.start(t)
	const says = "open /dev/autofs: operation not permitted"
	var text []byte
	said := func() bool { // in lines of 100 columns
		return strings.Contains(strings.Join(strings.Fields(string(text)), " "), says)
	}
	lab.Eventually(t, 10*time.Second, "the program ends", func() bool {
		status, err := p.task.Status(kubelet)
		text, _ = os.ReadFile(p.log)
		return err == nil && status.Status == client.Stopped
	})
	// What it wrote is copied to the file by others, who may be a little later.
	for end := time.Now().Add(lab.AnswerLimit); !said() && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, _ = os.ReadFile(p.log)
	}
	if !said() {
		t.Errorf("want %q:\n%s", says, text)
	}
}
