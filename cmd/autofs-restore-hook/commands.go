package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

// versionNumber is set by the linker.
var versionNumber = "development"

func versionCommand() *command {
	c := newCommand("version", "", "print the version", "Print the version of this program, of Go, and the architecture.")
	asJSON := jsonOption(c)
	c.run = noArguments(func() int {
		if *asJSON {
			fmt.Printf("{\"version\":%q,\"go\":%q,\"architecture\":%q}\n", versionNumber, runtime.Version(), runtime.GOARCH)
			return exitDone
		}
		fmt.Printf("%s %s (%s, %s)\n", programName, versionNumber, runtime.Version(), runtime.GOARCH)
		return exitDone
	})
	return c
}

func jsonOption(c *command) *bool { return c.options.Bool("json", false, "print JSON") }

// printJSON writes a document for programs.
func printJSON(document any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(document); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
