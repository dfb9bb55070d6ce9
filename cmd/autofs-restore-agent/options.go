package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/engine"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/kube"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook/journal"
	"github.com/autofs-restore-hook/autofs-restore-hook/install"
)

// Engines.
const (
	engineContainerd = "containerd"
	engineCRIO       = "crio"
)

// options are those of the command line.
type options struct {
	engine, socket          string
	hook, directory, prefix string
	listen, node            string
	serviceAccount          string
	workers                 int
	grace, installEvery     time.Duration
	install, uninstall      bool
	forceIrmap, postEvents  bool
	version                 bool
	level                   logrus.Level
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{node: os.Getenv("NODE_NAME")}
	f := flag.NewFlagSet("autofs-restore-agent", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.engine, "engine", engineContainerd, "container engine of the node: containerd or crio")
	f.StringVar(&o.socket, "socket", "", "its socket (default "+engine.ContainerdSocket+" or "+engine.CRIOSocket+")")
	f.StringVar(&o.hook, "hook", "/usr/bin/autofs-restore-hook", "path of autofs-restore-hook in the image")
	f.StringVar(&o.directory, "run-directory", journal.Directory, "where the host's "+journal.Directory+" is mounted")
	f.StringVar(&o.listen, "listen", ":9808", "address of /metrics, /healthz and /readyz")
	f.StringVar(&o.serviceAccount, "service-account", kube.ServiceAccount, "where the token and the certificate are mounted")
	f.IntVar(&o.workers, "workers", 4, "how many repairs run at a time")
	f.DurationVar(&o.grace, "grace", 50*time.Millisecond, "how long to wait for the repair by an OCI hook to begin")
	f.BoolVar(&o.install, "install", true, "keep autofs-restore-hook installed on the host (needs CRIU 3.19 or later there)")
	f.DurationVar(&o.installEvery, "install-every", time.Minute, "how often to check that it is still installed")
	f.BoolVar(&o.uninstall, "uninstall-on-exit", false, "remove it from the host when the agent is asked to end")
	f.BoolVar(&o.forceIrmap, install.ForceIrmap, false, "give CRIU the option force-irmap, for restores on another root filesystem; changes every dump of the host")
	f.StringVar(&o.prefix, "prefix", "/usr", "where it is installed: PREFIX/libexec/oci/hooks.d")
	f.BoolVar(&o.postEvents, "events", true, "post an Event on the pod when something stays unrepaired")
	f.TextVar(&o.level, "log-level", logrus.InfoLevel, "debug, info, warn or error")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	err := o.check(f.Args())
	if err != nil {
		fmt.Fprintf(out, "autofs-restore-agent: %v\n", err)
	}
	return o, err
}

func (o *options) check(rest []string) error {
	switch o.engine {
	case engineContainerd, engineCRIO:
	default:
		return fmt.Errorf("-engine %q: want containerd or crio", o.engine)
	}
	if o.socket == "" {
		o.socket = map[string]string{engineContainerd: engine.ContainerdSocket, engineCRIO: engine.CRIOSocket}[o.engine]
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q: want options only", rest)
	case o.workers < 1 || o.workers > 1000:
		return fmt.Errorf("-workers %d: want a number from 1 to 1000", o.workers)
	case o.installEvery <= 0:
		return fmt.Errorf("-install-every %s: want a time above 0", o.installEvery)
	case o.grace < 0 || o.grace > time.Minute:
		return fmt.Errorf("-grace %s: want a time from 0 to 1m", o.grace)
	}
	return nil
}
