package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/agent/containerd"
	"github.com/autofs-restore-hook/autofs-restore-hook/agent/kube"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

// Engines.
const (
	engineContainerd = "containerd"
	engineCRIO       = "crio"
)

const crioSocket = "/run/crio/crio.sock"

// options are those of the command line.
type options struct {
	engine, socket          string
	hook, directory, prefix string
	listen, node            string
	serviceAccount          string
	workers                 int
	grace, installEvery     time.Duration
	install, uninstall      bool
	postEvents              bool
	level                   slog.Level
}

func parse(args []string, out io.Writer) (options, error) {
	o := options{node: os.Getenv("NODE_NAME")}
	f := flag.NewFlagSet("autofs-restore-agent", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.engine, "engine", engineContainerd, "container engine of the node: containerd or crio")
	f.StringVar(&o.socket, "socket", "", "its socket (default "+containerd.Socket+" or "+crioSocket+")")
	f.StringVar(&o.hook, "hook", "/usr/bin/autofs-restore-hook", "the light binary of the image")
	f.StringVar(&o.directory, "run-directory", hook.Directory, "where the host's "+hook.Directory+" is mounted")
	f.StringVar(&o.listen, "listen", ":9808", "address of /metrics, /healthz and /readyz")
	f.StringVar(&o.serviceAccount, "service-account", kube.ServiceAccount, "where the token and the certificate are mounted")
	f.IntVar(&o.workers, "workers", 4, "how many repairs run at a time")
	f.DurationVar(&o.grace, "grace", 300*time.Millisecond, "how long to wait for somebody else's repair before our own")
	f.BoolVar(&o.install, "install", true, "keep the hook installed on the host (needs CRIU 3.19 or later there)")
	f.DurationVar(&o.installEvery, "install-every", time.Minute, "how often to look whether it still is")
	f.BoolVar(&o.uninstall, "uninstall-on-exit", false, "remove it from the host when the agent is asked to end")
	f.StringVar(&o.prefix, "prefix", "/usr", "where it is installed: PREFIX/libexec/oci/hooks.d")
	f.BoolVar(&o.postEvents, "events", true, "post an Event on the pod when something stays unrepaired")
	f.TextVar(&o.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
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
		o.socket = map[string]string{engineContainerd: containerd.Socket, engineCRIO: crioSocket}[o.engine]
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q: want options only", rest)
	case o.workers < 1 || o.workers > 1000:
		return errors.New("-workers: want a number from 1 to 1000")
	case o.installEvery <= 0:
		return errors.New("-install-every: want a time above 0")
	case o.grace < 0 || o.grace > time.Minute:
		return errors.New("-grace: want a time from 0 to 1m")
	}
	return nil
}
