package apiserver

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/kube"
)

const (
	restricted   = `{apiVersion: v1, kind: Namespace, metadata: {name: autofs-restore, labels: {pod-security.kubernetes.io/enforce: restricted}}}`
	unlabelled   = `{apiVersion: v1, kind: Namespace, metadata: {name: autofs-restore, labels: {pod-security.kubernetes.io/enforce: null}}}`
	withoutQuota = `{apiVersion: v1, kind: ResourceQuota, metadata: {name: autofs-restore-agent, namespace: autofs-restore}, $patch: delete}`
)

// agentPod waits for the pod that the DaemonSet's controller creates.
func agentPod(t *testing.T) corev1.Pod {
	t.Helper()
	settled(t)
	pods := get[corev1.PodList](t, "-n", "autofs-restore", "pods", "--selector=app.kubernetes.io/name=autofs-restore-agent").Items
	if len(pods) != 1 {
		t.Fatalf("%d pods, want 1", len(pods))
	}
	return pods[0]
}

// checkPod checks that the admitted pod is what the agent and the overlays expect.
func checkPod(t *testing.T, events bool) {
	t.Helper()
	pod := agentPod(t)
	if p := pod.Spec.Priority; p == nil || *p < 2000000000 || pod.Spec.ServiceAccountName != "autofs-restore-agent" {
		t.Errorf("priority %v, service account %s", p, pod.Spec.ServiceAccountName)
	}
	for _, v := range pod.Spec.Volumes {
		if v.HostPath == nil && v.Projected == nil {
			t.Errorf("volume %+v: the constraints of OpenShift's overlay do not allow this kind", v)
		}
	}
	token := slices.ContainsFunc(pod.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == kube.ServiceAccount })
	if token != events {
		t.Errorf("with Events %v, with a token %v", events, token)
	}
}

// TestNotAdmitted: without what the namespace has, the same pod is refused.
func TestNotAdmitted(t *testing.T) {
	for name, c := range map[string]struct{ patch, says string }{
		"restricted":          {restricted, `violates PodSecurity "restricted:latest"`},
		"the cluster's level": {unlabelled, `violates PodSecurity "restricted:latest"`},
		"no quota, as on GKE": {withoutQuota, "insufficient quota to match these scopes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := kustomization(t, "containerd", nil, c.patch)
			apply(t, dir)
			var last string
			eventually(t, "the controller may not create the pod", func() bool {
				for _, e := range get[corev1.EventList](t, "-n", "autofs-restore", "events", "--field-selector=reason=FailedCreate").Items {
					last = e.Message
				}
				return last != ""
			})
			if !strings.Contains(last, c.says) {
				t.Errorf("want %q: %s", c.says, last)
			}
			remove(t, dir)
		})
	}
}
