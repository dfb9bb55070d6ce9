package agent

import (
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
	dir := filepath.Join(lab.Checkout(), "manifests", "kubernetes", "overlays", overlay)
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("overlay %s: %v", overlay, err)
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
	var d appsv1.DaemonSet
	strict(t, overlay, build(t, overlay)["DaemonSet/autofs-restore-agent"], &d)
	if len(d.Spec.Template.Spec.Containers) != 1 {
		t.Fatalf("overlay %s: %d containers, want 1", overlay, len(d.Spec.Template.Spec.Containers))
	}
	return &d
}

var kinds = map[string]func() any{
	"Namespace/autofs-restore":                        func() any { return &corev1.Namespace{} },
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
		want := 5
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
			strict(t, overlay+": "+name, text, kinds[name]())
		}
	}
}
