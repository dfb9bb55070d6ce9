package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// overlays are those that people apply.
var overlays = []string{"containerd", "crio", "openshift"}

// build builds an overlay as kubectl -k does: by kind and name.
func build(t *testing.T, overlay string) map[string][]byte {
	t.Helper()
	return kustomize(t, filepath.Join(lab.Checkout(), "manifests", "kubernetes", "overlays", overlay))
}

func kustomize(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	built := map[string][]byte{}
	for _, r := range objects.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		built[r.GetKind()+"/"+r.GetName()] = text
	}
	return built
}

// strict decodes an object, which may have no field that its type does not.
func strict(t *testing.T, name string, text []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Errorf("%s: %v\n%s", name, err, text)
	}
}

func daemonSet(t *testing.T, overlay string) *appsv1.DaemonSet {
	t.Helper()
	return daemonSetOf(t, build(t, overlay))
}

func daemonSetOf(t *testing.T, built map[string][]byte) *appsv1.DaemonSet {
	t.Helper()
	var d appsv1.DaemonSet
	strict(t, "DaemonSet", built["DaemonSet/autofs-restore-agent"], &d)
	if len(d.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("%d containers, want 1", len(d.Spec.Template.Spec.Containers))
	}
	return &d
}

var kinds = map[string]func() any{
	"Namespace/autofs-restore":                        func() any { return &corev1.Namespace{} },
	"ResourceQuota/autofs-restore-agent":              func() any { return &corev1.ResourceQuota{} },
	"ServiceAccount/autofs-restore-agent":             func() any { return &corev1.ServiceAccount{} },
	"ClusterRole/autofs-restore-agent":                func() any { return &rbacv1.ClusterRole{} },
	"ClusterRoleBinding/autofs-restore-agent":         func() any { return &rbacv1.ClusterRoleBinding{} },
	"DaemonSet/autofs-restore-agent":                  func() any { return &appsv1.DaemonSet{} },
	"SecurityContextConstraints/autofs-restore-agent": func() any { return &securityContextConstraints{} },
}

// TestOverlays builds every overlay and decodes each object strictly.
func TestOverlays(t *testing.T) {
	for _, overlay := range overlays {
		built := build(t, overlay)
		want := 6
		if overlay == "openshift" {
			want++
		}
		if len(built) != want {
			t.Errorf("%s: %d objects, want %d", overlay, len(built), want)
		}
		for name, text := range built {
			if kinds[name] == nil {
				t.Errorf("%s: %s is not known to this test", overlay, name)
				continue
			}
			object := kinds[name]()
			strict(t, overlay+": "+name, text, object)
			checkLabels(t, overlay+": "+name, object)
		}
	}
}

// TestExamples decodes what is not part of an overlay.
func TestExamples(t *testing.T) {
	manifests := filepath.Join(lab.Checkout(), "manifests")
	for path, into := range map[string]any{
		"kubernetes/example/legacy.yaml":          &corev1.Pod{},
		"kubernetes/example/legacy-restored.yaml": &corev1.Pod{},
		"containerd/runtimeclass.yaml":            &nodev1.RuntimeClass{},
		"kubernetes/example/runtimeclass.yaml":    &nodev1.RuntimeClass{},
	} {
		text, err := os.ReadFile(filepath.Join(manifests, path))
		if err != nil {
			t.Fatal(err)
		}
		strict(t, path, text, into)
	}
}

// TestPermissions: the API server is asked for nothing but to take Events, and
// the node for nothing that is not listed here.
func TestPermissions(t *testing.T) {
	for _, overlay := range overlays {
		var role rbacv1.ClusterRole
		strict(t, overlay, build(t, overlay)["ClusterRole/autofs-restore-agent"], &role)
		if got := fmt.Sprint(role.Rules); got != fmt.Sprint([]rbacv1.PolicyRule{{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"events"}}}) {
			t.Errorf("%s: rules %s", overlay, got)
		}
		s := daemonSet(t, overlay).Spec.Template.Spec
		if s.HostNetwork || s.HostIPC || !s.HostPID {
			t.Errorf("%s: host network %v, IPC %v, PID %v", overlay, s.HostNetwork, s.HostIPC, s.HostPID)
		}
		paths := map[string]bool{}
		for _, v := range s.Volumes {
			paths[v.HostPath.Path] = true
		}
		engine := map[string]string{"containerd": "/run/containerd"}[overlay]
		if engine == "" {
			engine = "/run/crio"
		}
		if len(paths) != 2 || !paths[runDirectory] || !paths[engine] {
			t.Errorf("%s: folders of the host %v", overlay, paths)
		}
		if overlay == "openshift" {
			var scc securityContextConstraints
			strict(t, overlay, build(t, overlay)["SecurityContextConstraints/autofs-restore-agent"], &scc)
			if a, b := fmt.Sprint(scc.AllowedCapabilities), fmt.Sprint(s.Containers[0].SecurityContext.Capabilities.Add); a != b {
				t.Errorf("the pod has the capabilities %s, and may have %s", b, a)
			}
		}
	}
}
