package install

import "testing"

func TestRestoreSetting(t *testing.T) {
	const key, level = "enable_experimental_restore_via_create = ", "container_level_enabled = "
	for name, test := range map[string]struct{ text, want string }{
		"nothing":        {"version = 3\n", ""},
		"on":             {"    " + key + "true\n", ""},
		"off":            {"    " + key + "false\n", key + "false"},
		"CRIU off":       {"  enable_criu = false\n  " + key + "true\n", "enable_criu = false"},
		"no CRI":         {"disabled_plugins = ['io.containerd.grpc.v1.cri']\n" + key + "false\n", ""},
		"no CRI, short":  {"disabled_plugins = [\"cri\"]\n" + key + "false\n", ""},
		"another plugin": {"disabled_plugins = ['io.containerd.snapshotter.v1.zfs']\n" + key + "false\n", key + "false"},
		"CRI-O, on":      {"# enable_criu_support = true\n" + level + "\"checkpoint_restore\"\n", ""},
		"CRI-O, default": {"# container_level_enabled sets what\n# " + level + "\"checkpoint_only\"\n", level + "\"checkpoint_only\""},
		"CRI-O, none":    {level + "\"none\"\n", level + "\"none\""},
		"CRI-O, old":     {"enable_criu_support = false\n", "enable_criu_support = false"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := restoreSetting(test.text); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}
