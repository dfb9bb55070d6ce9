// Command bom describes what is linked into a Go program. It reads the list of
// modules in the binary, finds the licence files of every linked package in the
// module cache, and writes
//
//   - the texts of all licences and notices (-notices), which BSD, MIT and
//     Apache licences require to go with a binary,
//   - a CycloneDX bill of materials (-sbom).
//
// It fails if a module has no licence file, or a licence outside -license, the
// SPDX expression that the package states.
//
// The same binary and SOURCE_DATE_EPOCH give the same bytes.
package main

import (
	"debug/buildinfo"
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bom:", err)
		os.Exit(1)
	}
}

func run() error {
	source := flag.String("source", ".", "folder with the go.mod that the binary was built from")
	version := flag.String("version", "", "version of the binary")
	license := flag.String("license", "", "SPDX expression that must name every licence, as \"Apache-2.0 AND MIT\"")
	notices := flag.String("notices", "", "file to write the licence texts to")
	sbom := flag.String("sbom", "", "file to write the CycloneDX bill of materials to")
	flag.Parse()
	if flag.NArg() != 1 {
		return fmt.Errorf("want one binary, got %d arguments", flag.NArg())
	}
	binary := flag.Arg(0)
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("read the build information: %w", err)
	}
	modules, err := linkedModules(*source, info)
	if err != nil {
		return err
	}
	if err := classify(modules); err != nil {
		return err
	}
	if *license != "" {
		if err := checkLicense(modules, *license); err != nil {
			return err
		}
	}
	if *notices != "" {
		if err := os.WriteFile(*notices, noticesText(modules), 0o644); err != nil {
			return err
		}
	}
	if *sbom != "" {
		return writeSBOM(*sbom, binary, *version, info, modules)
	}
	return nil
}
