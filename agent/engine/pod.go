package engine

import (
	"errors"
	"unicode/utf8"
)

// ErrNotAPod means that a container belongs to no pod.
var ErrNotAPod = errors.New("its labels name no pod")

// Labels that the kubelet gives to every container through the engine (kubelet:
// pkg/kubelet/types/labels.go). They are the engine's: nothing in the container
// can change them.
const (
	LabelNamespace = "io.kubernetes.pod.namespace"
	LabelName      = "io.kubernetes.pod.name"
	LabelUID       = "io.kubernetes.pod.uid"
	LabelContainer = "io.kubernetes.container.name"
)

// maxLabel bounds each of them, in bytes: a name in Kubernetes has at most 253.
const maxLabel = 253

// Pod is a pod and one of its containers. The zero value is no pod.
type Pod struct{ Namespace, Name, UID, Container string }

// podFromLabels reads a container's labels. It is false for a container that
// belongs to no pod.
func podFromLabels(labels map[string]string) (Pod, bool) {
	p := Pod{labels[LabelNamespace], labels[LabelName], labels[LabelUID], labels[LabelContainer]}
	for _, required := range []string{p.Namespace, p.Name, p.UID} {
		if !isName(required) {
			return Pod{}, false
		}
	}
	if !isName(p.Container) {
		p.Container = ""
	}
	return p, true
}

// isName allows what can stand in a URL and in JSON as it is: letters, digits,
// "-", "." and "_", as in all names of Kubernetes.
func isName(s string) bool {
	if s == "" || len(s) > maxLabel || !utf8.ValidString(s) || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}
