package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/autofs-restore-hook/autofs-restore-hook/doctor"
	"github.com/autofs-restore-hook/autofs-restore-hook/hook"
)

// examine handles doctor. Its exit status is that of the worst verdict.
func examine(args []string) int {
	asJSON := len(args) == 1 && args[0] == "--json"
	if len(args) > 0 && !asJSON {
		fmt.Fprint(os.Stderr, usage)
		return exitUsage
	}
	facts, err := doctor.Gather(context.Background(), versionNumber, hook.Directory+"/reports")
	if err != nil {
		fmt.Fprintf(os.Stderr, "autofs-restore-hook doctor: %v\n", err)
		return exitUsage
	}
	checks := doctor.Judge(facts)
	if asJSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(struct {
			Version string         `json:"version"`
			Checks  []doctor.Check `json:"checks"`
		}{versionNumber, checks})
		if err != nil {
			fmt.Fprintf(os.Stderr, "autofs-restore-hook doctor: %v\n", err)
			return exitUsage
		}
		return doctor.ExitStatus(checks)
	}
	for _, c := range checks {
		fmt.Printf("%-4s  %s: %s", c.Status, c.Name, c.Text)
		if c.Next != "" {
			fmt.Printf("; next: %s", c.Next)
		}
		fmt.Println()
	}
	return doctor.ExitStatus(checks)
}
