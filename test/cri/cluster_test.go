package cri

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

// nodeName is the name of the one node.
const nodeName = "node-1"

// The addresses of the API server, which is also the only service, and of the node.
const serviceIP, nodeIP = "10.0.0.1", "192.168.66.1"

// cluster is a Kubernetes of one node, whose programs run as processes of the node.
// There is no proxy: the only service is the API server, at its address.
type cluster struct {
	dir      string
	programs string
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://%s", certificate-authority: %s}}]
users: [{name: user, user: {token: %s}}]
contexts: [{name: local, context: {cluster: local, user: user}}]
current-context: local
`

// kubeletConfig lets everyone in: the network is the test's. Control groups are left alone:
// where the host has a hybrid hierarchy, version 2 has no controllers.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://%s
evictionHard: {memory.available: 1Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 1%%, imagefs.inodesFree: 1%%}
imageGCHighThresholdPercent: 100
failSwapOn: false
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
oomScoreAdj: 0
protectKernelDefaults: true
resolvConf: ""
`

// tunables are settings of the kernel that a kubelet wants. They are those of the
// machine, so it sees files in their places.
var tunables = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// networkConfig makes the engine use testdata/veth, and its own loopback.
const networkConfig = `
[plugins.'io.containerd.cri.v1.runtime'.cni]
  use_internal_loopback = true
`

// prepareNetwork gives the node its addresses, and its pods a network.
func prepareNetwork(t *testing.T) {
	t.Helper()
	ours, err := os.Readlink("/proc/self/ns/net")
	if its, _ := os.Readlink("/proc/1/ns/net"); err != nil || ours == its {
		t.Fatalf("network namespace %s, %v: this is the network of the machine; make test-kubernetes has its own", ours, err)
	}
	plugin := filepath.Join(lab.Checkout(), "test", "cri", "testdata", "veth")
	script := fmt.Sprintf(`ip link set lo up
ip address add %s/32 dev lo
ip address add %s/32 dev lo
install -D %s /opt/cni/bin/veth
mkdir -p /etc/cni/net.d
echo '{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "veth"}]}' >/etc/cni/net.d/veth.conflist
`, serviceIP, nodeIP, plugin)
	for name, value := range tunables {
		script += fmt.Sprintf("echo %s >/run/%s && mount --bind /run/%s /proc/sys/%s\n", value, filepath.Base(name), filepath.Base(name), name)
	}
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("network of the node: %v: %s", err, out)
	}
}

// startCluster starts a cluster on a running engine, and waits until its node is ready.
func startCluster(t *testing.T, programs string) *cluster {
	t.Helper()
	c := &cluster{dir: lab.Scratch(t, "cluster"), programs: programs}
	certificate, key := c.path("apiserver.crt"), c.path("key")
	for name, text := range map[string]string{
		"key":          serviceAccountKey(t),
		"tokens":       "admin,admin,admin,system:masters\nnode,system:node:" + nodeName + ",node,system:nodes\n",
		"admin":        fmt.Sprintf(kubeconfig, serviceIP, certificate, "admin"),
		"node":         fmt.Sprintf(kubeconfig, serviceIP, certificate, "node"),
		"kubelet.yaml": fmt.Sprintf(kubeletConfig, engine.ContainerdSocket),
	} {
		if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.run(t, "server", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync")
	c.run(t, "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--cert-dir="+c.dir,
		"--secure-port=443", "--advertise-address="+nodeIP, "--service-cluster-ip-range=10.0.0.0/24",
		"--allow-privileged", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--token-auth-file="+c.path("tokens"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+key, "--service-account-key-file="+key,
		"--kubelet-preferred-address-types=InternalIP")
	c.await(t, "the API server is ready", "get", "--raw", "/readyz")
	c.run(t, "kube-controller-manager", "--kubeconfig="+c.path("admin"), "--leader-elect=false", "--secure-port=0",
		"--root-ca-file="+certificate, "--service-account-private-key-file="+key)
	c.run(t, "kube-scheduler", "--kubeconfig="+c.path("admin"), "--leader-elect=false", "--secure-port=0")
	c.run(t, "kubelet", "--config="+c.path("kubelet.yaml"), "--kubeconfig="+c.path("node"),
		"--hostname-override="+nodeName, "--node-ip="+nodeIP, "--cert-dir="+c.dir)
	c.await(t, "the node is there", "get", "node", nodeName)
	c.kubectl(t, "wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=60s")
	c.await(t, "pods are admitted", "get", "serviceaccount", "default")
	return c
}

// run starts a program of the cluster. It ends with the test.
func (c *cluster) run(t *testing.T, program string, args ...string) {
	t.Helper()
	log, err := os.Create(c.path(program + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(c.programs, program), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (make test-kubernetes builds it)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("the end of the log of %s:\n%s", program, text[max(0, len(text)-4000):])
		}
	})
}

// command is kubectl as the cluster's administrator.
func (c *cluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.programs, "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.path("admin"))
	return cmd
}

// kubectl returns what kubectl prints, and has it in the test's log.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := c.command(args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	t.Logf("$ kubectl %s\n%s%s", strings.Join(args, " "), out, stderr.String())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// await waits until a call of kubectl succeeds.
func (c *cluster) await(t *testing.T, what string, args ...string) {
	t.Helper()
	lab.Eventually(t, time.Minute, what, func() bool { return c.command(args...).Run() == nil })
}

// serviceAccountKey signs the tokens of service accounts.
func serviceAccountKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}
