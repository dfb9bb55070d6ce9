package bench

import (
	"fmt"
	"strings"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
)

func mountPoint(i int) string { return fmt.Sprintf("/auto/%03d", i) }

// units are the names of the automount units, separated by blanks.
func units(size int) []string {
	var names []string
	for i := range size {
		names = append(names, lab.UnitName(mountPoint(i), "automount"))
	}
	return names
}

// automounts returns the files of a container with that many idle automounts.
func automounts(size int) map[string]string {
	const dir = "/etc/systemd/system/"
	files := map[string]string{
		dir + "multi-user.target.d/bench.conf": "[Unit]\nWants=" + strings.Join(units(size), " ") + "\n",
	}
	for i := range size {
		path := mountPoint(i)
		source := "/srv" + path
		files[source+"/"+lab.Marker] = path + "\n"
		files[dir+lab.UnitName(path, "automount")] = fmt.Sprintf("[Automount]\nWhere=%s\n", path)
		files[dir+lab.UnitName(path, "mount")] = fmt.Sprintf("[Mount]\nWhat=%s\nWhere=%s\nType=none\nOptions=bind\n", source, path)
	}
	return files
}

// lastAccess returns one access, to check that the automounts are served.
func lastAccess(size int) []lab.Access {
	path := mountPoint(size - 1)
	return []lab.Access{{Path: path + "/" + lab.Marker, Content: path}}
}
