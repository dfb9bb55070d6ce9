package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cluster is etcd, an API server and the controllers, and one Node object.
type cluster struct {
	dir      string // data, keys, logs
	programs string
	port     string // of the API server
	started  []*exec.Cmd
}

// node is a name of an object: no machine.
const node = "node-1"

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

// admission is stricter than the defaults: pods are held to the restricted level
// where their namespace says nothing else, and GKE's limit of the system's
// priority classes is set.
const admission = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: PodSecurity
    configuration:
      apiVersion: pod-security.admission.config.k8s.io/v1
      kind: PodSecurityConfiguration
      defaults: {enforce: restricted, audit: restricted, warn: restricted}
  - name: ResourceQuota
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ResourceQuotaConfiguration
      limitedResources:
        - resource: pods
          matchScopes:
            - scopeName: PriorityClass
              operator: In
              values: [system-node-critical, system-cluster-critical]
`

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://127.0.0.1:%s", certificate-authority: %s}}]
users: [{name: admin, user: {token: admin}}]
contexts: [{name: local, context: {cluster: local, user: admin}}]
current-context: local
`

const nodeObject = `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "` + node + `",
	"labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}}`

func (c *cluster) start() error {
	runtime.LockOSThread() // Pdeathsig is about the thread
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	c.port = ports[0]
	key, err := serviceAccountKey()
	if err != nil {
		return err
	}
	for name, text := range map[string]string{
		"key":        key,
		"tokens":     "admin,admin,admin,system:masters\n",
		"admission":  admission,
		"kubeconfig": fmt.Sprintf(kubeconfig, c.port, c.path("apiserver.crt")),
		"node":       nodeObject,
	} {
		if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	etcd, peer := "http://127.0.0.1:"+ports[1], "http://127.0.0.1:"+ports[2]
	if err := c.run("server", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer); err != nil {
		return err
	}
	if err := c.run("kube-apiserver", "--etcd-servers="+etcd, "--cert-dir="+c.dir,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+c.port, "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		"--allow-privileged", "--authorization-mode=Node,RBAC", "--token-auth-file="+c.path("tokens"),
		"--enable-admission-plugins=NodeRestriction", "--admission-control-config-file="+c.path("admission"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+c.path("key"), "--service-account-key-file="+c.path("key")); err != nil {
		return err
	}
	if err := c.await("get", "--raw", "/readyz"); err != nil {
		return err
	}
	if err := c.run("kube-controller-manager", "--kubeconfig="+c.path("kubeconfig"), "--leader-elect=false", "--secure-port=0",
		"--root-ca-file="+c.path("apiserver.crt")); err != nil {
		return err
	}
	if err := c.await("get", "serviceaccount", "default"); err != nil {
		return err
	}
	return c.await("apply", "--server-side", "--filename="+c.path("node"))
}

// run starts a program, which ends with the tests.
func (c *cluster) run(program string, args ...string) error {
	log, err := os.Create(c.path(program + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(c.programs, program), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w (make test-apiserver builds it)", err)
	}
	c.started = append(c.started, cmd)
	return nil
}

// await waits until a call of kubectl succeeds.
func (c *cluster) await(args ...string) error {
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out, err := command(args...).CombinedOutput()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("kubectl %q: not within %v: %w: %s\n%s", args, patience, err, out, c.logs())
		}
	}
}

// logs is the end of what each program wrote.
func (c *cluster) logs() string {
	var all strings.Builder
	names, _ := filepath.Glob(c.path("*.log"))
	for _, name := range names {
		text, _ := os.ReadFile(name)
		fmt.Fprintf(&all, "%s:\n%s\n", name, text[max(0, len(text)-4000):])
	}
	return all.String()
}

// stop ends the programs, the last one first.
func (c *cluster) stop() {
	for _, cmd := range slices.Backward(c.started) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// freePorts are free on loopback: etcd and the API server take no listener.
func freePorts(n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports, nil
}

// serviceAccountKey signs the tokens of service accounts.
func serviceAccountKey() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), nil
}
