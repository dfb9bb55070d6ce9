package lab

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// listedUnit is a line of the role "units".
type listedUnit struct {
	Unit
	Name string
	Job  bool // whether it has a job
}

// runUnits writes the state of all loaded units of the container's systemd. systemctl
// show needs a third of a second for that: it reads all properties of each unit.
func runUnits([]string) error {
	conn, err := dbus.Dial("unix:path=" + PrivateSocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal("0")}); err != nil {
		return err
	}
	const service = "org.freedesktop.systemd1"
	object := func(path dbus.ObjectPath) dbus.BusObject { return conn.Object(service, path) }
	var list []struct {
		Name, Description, Load, Active, Sub, Following string
		Path                                            dbus.ObjectPath
		Job                                             uint32
		JobType                                         string
		JobPath                                         dbus.ObjectPath
	}
	manager := object("/org/freedesktop/systemd1")
	call := manager.Go(service+".Manager.ListUnits", 0, make(chan *dbus.Call, 1))
	// systemd leaves a message that it reads together with the end of the authentication
	// in its buffer until more data arrives.
	for more := time.Tick(5 * time.Millisecond); ; {
		select {
		case <-call.Done:
		case <-more:
			manager.Go("org.freedesktop.DBus.Peer.Ping", 0, nil)
			continue
		}
		break
	}
	if err := call.Store(&list); err != nil {
		return err
	}
	get := func(path dbus.ObjectPath, kind, name string) *dbus.Call {
		return object(path).Go("org.freedesktop.DBus.Properties.Get", 0, make(chan *dbus.Call, 1), service+"."+kind, name)
	}
	invocations, mains := make([]*dbus.Call, len(list)), make([]*dbus.Call, len(list))
	for i, u := range list {
		invocations[i] = get(u.Path, "Unit", "InvocationID")
		if strings.HasSuffix(u.Name, ".service") {
			mains[i] = get(u.Path, "Service", "MainPID")
		}
	}
	out := json.NewEncoder(os.Stdout)
	for i, u := range list {
		line := listedUnit{Unit: Unit{ActiveState: u.Active, SubState: u.Sub}, Name: u.Name, Job: u.Job != 0}
		var id []byte
		err := (<-invocations[i].Done).Store(&id)
		line.InvocationID = hex.EncodeToString(id)
		if mains[i] != nil {
			var pid uint32
			err = errors.Join(err, (<-mains[i].Done).Store(&pid))
			line.MainPID = strconv.Itoa(int(pid))
		}
		if err = errors.Join(err, out.Encode(line)); err != nil {
			return err
		}
	}
	return nil
}
