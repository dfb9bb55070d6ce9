package cri

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autofs-restore-hook/autofs-restore-hook/test/lab"
	"github.com/autofs-restore-hook/autofs-restore-hook/test/matrix"
)

// rows are the results, in the order in which the tests ran.
var rows []*matrix.Row

// control is the column of a restore without the program.
const control = "without the program"

// addCell adds a cell to a row of the table. The test sets its text; it
// says FAILED if the test fails.
func addCell(t *testing.T, row, column string) *matrix.Entry {
	t.Helper()
	engine := "containerd" + row
	i := slices.IndexFunc(rows, func(r *matrix.Row) bool { return r.Engine == engine })
	if i < 0 {
		var versions []string
		for _, program := range []string{"containerd", "runc", "criu"} {
			versions = append(versions, program+" "+lab.Version(program))
		}
		i = len(rows)
		rows = append(rows, &matrix.Row{
			Node: lab.NodeName(), Engine: engine, Versions: strings.Join(versions, ", "),
			Date: time.Now().UTC().Format(time.DateOnly), Control: matrix.NotRun,
		})
	}
	cell := &matrix.Entry{Column: column}
	t.Cleanup(func() {
		if t.Failed() {
			cell.Text = "FAILED"
		}
		if column == control {
			rows[i].Control = cell.Text
			return
		}
		rows[i].Cells = append(rows[i].Cells, *cell)
	})
	return cell
}
