package agent

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// api takes Events as the API server does: over TLS, with a token, and decoded
// strictly.
type api struct {
	server *httptest.Server
	dir    string // what the kubelet mounts
	events chan corev1.Event
}

const token = "token-of-the-service-account"

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{dir: lab.Scratch(t, "serviceaccount"), events: make(chan corev1.Event, 100)}
	a.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces/default/events" ||
			r.Header.Get("Authorization") != "Bearer "+token || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s %v: %v", r.Method, r.URL, r.Header, err)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		var e corev1.Event
		if err := yaml.UnmarshalStrict(body, &e); err != nil {
			t.Errorf("event: %v\n%s", err, body)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if e.Kind != "Event" || e.APIVersion != "v1" || e.Name == "" || e.Namespace != e.InvolvedObject.Namespace || len(e.Message) > 1024 {
			t.Errorf("the API server would refuse %s", body)
		}
		a.events <- e
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(a.server.Close)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	for name, data := range map[string][]byte{"ca.crt": certificate, "token": []byte(token + "\n")} {
		if err := os.WriteFile(filepath.Join(a.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// give gives a pod what the kubelet gives every pod.
func (a *api) give(s *corev1.PodSpec) {
	c := &s.Containers[0]
	host, port, _ := net.SplitHostPort(a.server.Listener.Addr().String())
	c.Env = append(c.Env, corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: host}, corev1.EnvVar{Name: "KUBERNETES_SERVICE_PORT", Value: port})
	kind := corev1.HostPathDirectory
	s.Volumes = append(s.Volumes, corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: a.dir, Type: &kind},
	}})
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{
		Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true,
	})
}

func (a *api) wait(t *testing.T) corev1.Event {
	t.Helper()
	select {
	case e := <-a.events:
		return e
	case <-time.After(30 * time.Second):
		t.Fatal("no Event came")
	}
	return corev1.Event{}
}
