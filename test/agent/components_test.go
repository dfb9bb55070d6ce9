package agent

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelabels "k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// podMonitor is the Prometheus operator's type of monitoring.coreos.com/v1, as far
// as the manifests use it. The rules are read in test/rules.
type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector            metav1.LabelSelector `json:"selector"`
		PodMetricsEndpoints []struct {
			Port        string `json:"port"`
			Path        string `json:"path"`
			Interval    string `json:"interval"`
			Relabelings []struct {
				SourceLabels []string `json:"sourceLabels"`
				TargetLabel  string   `json:"targetLabel"`
			} `json:"relabelings"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

// withComponents builds the containerd overlay with components, as a user's own
// kustomization does.
func withComponents(t *testing.T, components ...string) map[string][]byte {
	t.Helper()
	manifests := filepath.Join(lab.Checkout(), "manifests", "kubernetes")
	dir := t.TempDir()
	// kustomize takes relative paths only.
	relative, err := filepath.Rel(dir, manifests)
	if err != nil {
		t.Fatal(err)
	}
	text := "resources: [" + relative + "/overlays/containerd]\ncomponents:\n"
	for _, c := range components {
		text += "- " + relative + "/components/" + c + "\n"
	}
	text += "images: [{name: registry.invalid/autofs-restore-agent, newName: registry.example.com/agent, digest: sha256:" + strings.Repeat("0", 64) + "}]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kustomize(t, dir)
}

// TestComponents builds an overlay with all components and decodes what they add.
func TestComponents(t *testing.T) {
	built := withComponents(t, "network-policy", "monitoring", "no-events")
	d := daemonSetOf(t, built)
	pod := d.Spec.Template
	if image := pod.Spec.Containers[0].Image; !strings.HasPrefix(image, "registry.example.com/agent@sha256:") {
		t.Errorf("image %s: the placeholder is not replaced", image)
	}
	if args := fmt.Sprint(pod.Spec.Containers[0].Args); args != "[--engine=containerd --events=false]" {
		t.Errorf("arguments %s", args)
	}
	if mounted := pod.Spec.AutomountServiceAccountToken; mounted == nil || *mounted {
		t.Error("an agent without Events has a token")
	}
	for _, name := range []string{"ClusterRole/autofs-restore-agent", "ClusterRoleBinding/autofs-restore-agent"} {
		if built[name] != nil {
			t.Errorf("an agent without Events has %s", name)
		}
	}
	selects := func(what string, s metav1.LabelSelector) {
		t.Helper()
		selector, err := metav1.LabelSelectorAsSelector(&s)
		if err != nil || selector.Empty() || !selector.Matches(kubelabels.Set(pod.Labels)) {
			t.Errorf("the %s selects %q, %v: not the agent's pods, which have %v", what, selector, err, pod.Labels)
		}
	}
	port := pod.Spec.Containers[0].Ports[0].Name

	var monitor podMonitor
	strict(t, "PodMonitor", built["PodMonitor/autofs-restore-agent"], &monitor)
	checkLabels(t, "PodMonitor", &monitor)
	selects("PodMonitor", monitor.Spec.Selector)
	if e := monitor.Spec.PodMetricsEndpoints; len(e) != 1 || e[0].Port != port || monitor.Namespace != d.Namespace {
		t.Errorf("PodMonitor in %s: %+v", monitor.Namespace, e)
	}
	var policy networkingv1.NetworkPolicy
	strict(t, "NetworkPolicy", built["NetworkPolicy/autofs-restore-agent"], &policy)
	checkLabels(t, "NetworkPolicy", &policy)
	selects("NetworkPolicy", policy.Spec.PodSelector)
	if in := policy.Spec.Ingress; len(in) != 1 || len(in[0].Ports) != 1 || *in[0].Ports[0].Port != intstr.FromString(port) || policy.Namespace != d.Namespace {
		t.Errorf("NetworkPolicy in %s: %+v", policy.Namespace, in)
	}
}

// recommended are the labels that every object has.
var recommended = []string{"name", "instance", "component", "part-of", "managed-by"}

func checkLabels(t *testing.T, name string, object any) {
	t.Helper()
	has := object.(metav1.Object).GetLabels()
	for _, label := range recommended {
		if has["app.kubernetes.io/"+label] == "" {
			t.Errorf("%s has no label app.kubernetes.io/%s", name, label)
		}
	}
	if namespace, ok := object.(*corev1.Namespace); ok {
		for _, mode := range []string{"enforce", "audit", "warn"} {
			if namespace.Labels["pod-security.kubernetes.io/"+mode] != "privileged" {
				t.Errorf("%s: Pod Security, %s: %v", name, mode, namespace.Labels)
			}
		}
	}
}

// TestDaemonSetFields: what stricter clusters refuse, or what fails late.
func TestDaemonSetFields(t *testing.T) {
	for _, overlay := range overlays {
		built := build(t, overlay)
		d := daemonSetOf(t, built)
		s := d.Spec.Template.Spec
		if len(d.Spec.Selector.MatchLabels) != 1 {
			t.Errorf("%s: selector %v: labels in it can never change", overlay, d.Spec.Selector.MatchLabels)
		}
		if s.NodeSelector["kubernetes.io/os"] != "linux" {
			t.Errorf("%s: nodes %v", overlay, s.NodeSelector)
		}
		terms := s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		if e := terms[0].MatchExpressions; len(terms) != 1 || len(e) != 1 || e[0].Key != "kubernetes.io/arch" || !slices.Equal(e[0].Values, slices.Sorted(maps.Keys(openImage(t)))) {
			t.Errorf("%s: nodes %v, want those of the image", overlay, terms)
		}
		if image := s.Containers[0].Image; !strings.HasPrefix(image, "registry.invalid/") {
			t.Errorf("%s: image %s may resolve to another one", overlay, image)
		}
		if escalation := s.Containers[0].SecurityContext.AllowPrivilegeEscalation; escalation == nil || !*escalation {
			t.Errorf("%s: allowPrivilegeEscalation is not said", overlay)
		}
		var quota corev1.ResourceQuota
		strict(t, overlay, built["ResourceQuota/autofs-restore-agent"], &quota)
		if q := quota.Spec.ScopeSelector.MatchExpressions; len(q) != 1 || !slices.Contains(q[0].Values, s.PriorityClassName) || quota.Spec.Hard.Pods().Value() < 5000 {
			t.Errorf("%s: priority class %s, quota %+v for %v pods", overlay, s.PriorityClassName, q, quota.Spec.Hard.Pods())
		}
	}
}
