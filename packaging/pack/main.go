// Command pack makes the Debian and the RPM package that nfpm.yaml describes, with
// nfpm as a library. The nfpm command cannot mark files found by a pattern as
// documents of an RPM package, nor name the modules that are linked into the
// program.
//
//	pack -sbom FILE CONFIGURATION FOLDER
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

func main() {
	sbom := flag.String("sbom", "", "CycloneDX bill of materials of the program")
	flag.Parse()
	if err := run(*sbom, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(sbom, configuration, folder string) error {
	bundled, err := bundledModules(sbom)
	if err != nil {
		return err
	}
	config, err := nfpm.ParseFile(configuration)
	if err != nil {
		return fmt.Errorf("read %s: %w", configuration, err)
	}
	for _, kind := range []string{"deb", "rpm"} {
		info, err := config.Get(kind)
		if err != nil {
			return fmt.Errorf("read %s: %w", configuration, err)
		}
		info = nfpm.WithDefaults(info)
		if kind == "rpm" {
			info.Provides = append(info.Provides, bundled...)
			info.RPM.Summary, info.Description, _ = strings.Cut(info.Description, "\n")
			if err := markDocuments(info); err != nil {
				return err
			}
		}
		if err := write(info, kind, folder); err != nil {
			return fmt.Errorf("make the %s: %w", kind, err)
		}
	}
	return nil
}

func write(info *nfpm.Info, kind, folder string) error {
	packager, err := nfpm.Get(kind)
	if err != nil {
		return err
	}
	info.Target = filepath.Join(folder, packager.ConventionalFileName(info))
	file, err := os.Create(info.Target)
	if err != nil {
		return err
	}
	if err := packager.Package(info, file); err != nil {
		return err
	}
	return file.Close()
}

// markDocuments gives manual pages and documents the type that rpm --nodocs and
// rpm -qd know.
func markDocuments(info *nfpm.Info) error {
	if err := nfpm.PrepareForPackager(info, "rpm"); err != nil {
		return fmt.Errorf("find the files of the package: %w", err)
	}
	for _, content := range info.Contents {
		if content.Type == files.TypeFile && (strings.HasPrefix(content.Destination, "/usr/share/doc/") || strings.HasPrefix(content.Destination, "/usr/share/man/")) {
			content.Type = files.TypeRPMDoc
		}
	}
	return nil
}

// bundledModules lists what RPM packages say that they provide for each module
// that is linked into a program of theirs.
func bundledModules(sbom string) ([]string, error) {
	file, err := os.Open(sbom)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(file, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return nil, fmt.Errorf("read %s: %w", sbom, err)
	}
	var bundled []string
	for _, c := range *bom.Components {
		if version, ok := strings.CutPrefix(c.Version, "v"); ok {
			bundled = append(bundled, fmt.Sprintf("bundled(golang(%s)) = %s", c.Name, strings.ReplaceAll(version, "-", "_")))
		}
	}
	return bundled, nil
}
