package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Setenv("NODE_NAME", "node-1")
	o, err := parse(nil, &bytes.Buffer{})
	if err != nil || o.engine != "containerd" || o.socket != "/run/containerd/containerd.sock" || o.node != "node-1" ||
		!o.install || o.uninstall || !o.postEvents || o.workers != 4 || o.grace != 50*time.Millisecond {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = parse([]string{"-engine=crio"}, &bytes.Buffer{}); err != nil || o.socket != "/run/crio/crio.sock" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range []string{
		"-engine=docker", "-engine=", "-workers=0", "-workers=1001", "-workers=x", "-grace=-1s", "-grace=2m",
		"-install-every=0", "-log-level=loud", "install", "-unknown",
	} {
		var out bytes.Buffer
		if o, err := parse([]string{args}, &out); err == nil || !strings.Contains(out.String(), strings.SplitN(strings.TrimLeft(args, "-"), "=", 2)[0]) {
			t.Errorf("%s: %+v, %v: %s", args, o, err, out.String())
		}
	}
}
