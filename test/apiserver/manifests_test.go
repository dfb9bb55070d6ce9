package apiserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	// Its folder example has the definitions.
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
)

// removeSCC is for clusters other than OpenShift: no release of its Go module has
// the definition of this type. test/agent decodes it strictly.
const removeSCC = `{apiVersion: security.openshift.io/v1, kind: SecurityContextConstraints, metadata: {name: autofs-restore-agent}, $patch: delete}`

// kustomization writes one as users do.
func kustomization(t *testing.T, overlay string, components []string, patches ...string) string {
	t.Helper()
	dir := t.TempDir()
	relative, err := filepath.Rel(dir, manifests) // kustomize takes no other
	if err != nil {
		t.Fatal(err)
	}
	if overlay == "openshift" {
		patches = append(patches, removeSCC)
	}
	text := "resources: [" + relative + "/overlays/" + overlay + "]\ncomponents:\n"
	for _, c := range components {
		text += "- " + relative + "/components/" + c + "\n"
	}
	text += "patches:\n"
	for _, p := range patches {
		text += "- patch: '" + p + "'\n"
	}
	text += "images: [{name: registry.invalid/autofs-restore-agent, newName: registry.example.com/agent, newTag: v1}]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// subfolders are those of manifests/kubernetes/NAME.
func subfolders(t *testing.T, name string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(manifests, name))
	if err != nil || len(entries) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// definitions has the Prometheus operator's types, from its module.
func definitions(t *testing.T) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus-operator/prometheus-operator").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"podmonitors", "prometheusrules"} {
		kubectl(t, "apply", "--server-side", "--filename", filepath.Join(strings.TrimSpace(string(dir)), "example", "prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml"))
		kubectl(t, "wait", "--for=condition=Established", "crd/"+kind+".monitoring.coreos.com")
	}
}

// apply applies a kustomization and returns what it applied.
func apply(t *testing.T, dir string) string {
	t.Helper()
	return kubectl(t, "apply", "--server-side", "--validate=strict", "--kustomize", dir)
}

// remove deletes a kustomization and checks that nothing is left.
func remove(t *testing.T, dir string) {
	t.Helper()
	kubectl(t, "delete", "--kustomize", dir)
	nothingLeft(t)
}

func nothingLeft(t *testing.T) {
	t.Helper()
	kinds := strings.Fields(kubectl(t, "api-resources", "--verbs=list", "--output=name"))
	deprecated := []string{"componentstatuses", "endpoints"} // the API server warns
	kinds = slices.DeleteFunc(kinds, func(kind string) bool { return slices.Contains(deprecated, kind) })
	eventually(t, "nothing is left", func() bool {
		left := kubectl(t, "get", strings.Join(kinds, ","), "--all-namespaces", "--selector=app.kubernetes.io/part-of=autofs-restore-hook", "--output=name")
		return left == ""
	})
	if left := kubectl(t, "get", "namespace", "autofs-restore", "--ignore-not-found", "--output=name"); left != "" {
		t.Errorf("%s is left", left)
	}
}

// TestManifests applies each overlay and each component twice, and deletes them.
// The DaemonSet's controller creates the pod in between.
func TestManifests(t *testing.T) {
	definitions(t)
	type choice struct {
		overlay    string
		components []string
	}
	components := subfolders(t, "components")
	var choices []choice
	for _, o := range subfolders(t, "overlays") {
		choices = append(choices, choice{o, nil}, choice{o, components})
	}
	for _, c := range components {
		choices = append(choices, choice{"containerd", []string{c}})
	}
	for _, c := range choices {
		t.Run(strings.Join(append([]string{c.overlay}, c.components...), ","), func(t *testing.T) {
			dir := kustomization(t, c.overlay, c.components)
			applied := apply(t, dir)
			checkPod(t, !slices.Contains(c.components, "no-events"))
			before := versions(t, dir)
			if again := apply(t, dir); again != applied {
				t.Errorf("the second time:\n%s", again)
			}
			if after := versions(t, dir); after != before {
				t.Errorf("the second time changes\n%s\nto\n%s", before, after)
			}
			remove(t, dir)
		})
	}
}

// settled waits until the controllers have written the status of the objects.
func settled(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", "autofs-restore", "wait", "--timeout="+patience.String(), "--for=jsonpath={.status.currentNumberScheduled}=1", "daemonset/autofs-restore-agent")
	kubectl(t, "-n", "autofs-restore", "wait", "--timeout="+patience.String(), "--for=jsonpath={.status.used.pods}=1", "resourcequota/autofs-restore-agent")
}

// versions are the resource versions of what a kustomization has.
func versions(t *testing.T, dir string) string {
	t.Helper()
	return kubectl(t, "get", "--kustomize", dir, "--output=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}")
}

// TestStrict: the API server refuses a field that it does not know, and a value.
func TestStrict(t *testing.T) {
	definitions(t)
	for _, c := range []struct{ patch, says string }{
		{`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: autofs-restore-agent, namespace: autofs-restore}, spec: {template: {spec: {hostPid: true}}}}`, ".spec.template.spec.hostPid: field not declared in schema"},
		{`{apiVersion: monitoring.coreos.com/v1, kind: PodMonitor, metadata: {name: autofs-restore-agent, namespace: autofs-restore}, spec: {targets: {}}}`, ".spec.targets: field not declared in schema"},
		{`{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: autofs-restore-agent, namespace: autofs-restore}, spec: {template: {spec: {restartPolicy: Never}}}}`, `Unsupported value: "Never"`},
	} {
		dir := kustomization(t, "containerd", []string{"monitoring"}, c.patch)
		if said := refused(t, "apply", "--server-side", "--validate=strict", "--kustomize", dir); !strings.Contains(said, c.says) {
			t.Errorf("want %q:\n%s", c.says, said)
		}
		kubectl(t, "delete", "--ignore-not-found", "--kustomize", dir)
	}
	nothingLeft(t)
}

// TestExamples applies every other manifest, in a namespace of the user.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(manifests, "example", "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%q, %v", files, err)
	}
	kubectl(t, "create", "namespace", "legacy")
	kubectl(t, "label", "namespace", "legacy", "pod-security.kubernetes.io/enforce=privileged", "pod-security.kubernetes.io/warn=privileged")
	t.Cleanup(func() { kubectl(t, "delete", "namespace", "legacy") })
	eventually(t, "a service account in it", func() bool {
		return kubectl(t, "-n", "legacy", "get", "serviceaccount", "default", "--ignore-not-found", "--output=name") != ""
	})
	for _, file := range append(files, filepath.Join(checkout, "manifests", "containerd", "runtimeclass.yaml")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(t.TempDir(), filepath.Base(file))
		text = []byte(strings.Replace(string(text), "nodeName: NODE", "nodeName: "+node, 1)) // as it says
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		kubectl(t, "-n", "legacy", "apply", "--server-side", "--validate=strict", "--filename", file)
		// Forced, since no kubelet ends a pod with a node; kubectl warns of that.
		if out, err := command("-n", "legacy", "delete", "--force", "--grace-period=0", "--filename", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", file, err, out)
		}
	}
}

// TestRemoval runs the commands of the README as they are written. Without a
// kubelet there is no rollout.
func TestRemoval(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(manifests, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Remove\n")
	patch := regexp.MustCompile(`(?m)^    (kubectl -n autofs-restore patch (.*\\\n)*.*)$`).FindStringSubmatch(section)
	if patch == nil || !strings.Contains(section, "    kubectl delete -k .\n") {
		t.Fatalf("the commands are not found:\n%s", section)
	}
	dir := kustomization(t, "containerd", nil)
	kubectl(t, "apply", "-k", dir)
	cmd := command()
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-ec", patch[1]}
	output(t, cmd)
	args := kubectl(t, "-n", "autofs-restore", "get", "daemonset", "autofs-restore-agent", "--output=jsonpath={.spec.template.spec.containers[0].args}")
	if args != `["--engine=containerd","--uninstall-on-exit"]` {
		t.Errorf("arguments %s", args)
	}
	kubectl(t, "delete", "-k", dir)
	nothingLeft(t)
}
