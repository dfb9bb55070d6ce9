package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes a CycloneDX bill of materials in JSON.
func writeSBOM(file, binary, version string, info *buildinfo.BuildInfo, modules []*module) error {
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(program)
	root := cdx.Component{
		BOMRef:     packageURL(info.Main.Path, version),
		Type:       cdx.ComponentTypeApplication,
		Name:       path.Base(info.Path),
		Version:    version,
		PackageURL: packageURL(info.Main.Path, version),
		Licenses:   licenses([]string{ownLicense}),
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(digest[:])}},
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &root}
	if epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		bom.Metadata.Timestamp = time.Unix(epoch, 0).UTC().Format(time.RFC3339)
	}
	var components []cdx.Component
	var refs []string
	for _, m := range modules {
		c, err := component(m)
		if err != nil {
			return err
		}
		components = append(components, c)
		refs = append(refs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: root.BOMRef, Dependencies: &refs}}

	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return out.Close()
}

func component(m *module) (cdx.Component, error) {
	url := packageURL(m.path, m.version)
	c := cdx.Component{
		BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: m.path, Version: m.version,
		PackageURL: url, Scope: cdx.ScopeRequired, Licenses: licenses(m.licenses),
	}
	if hash, ok := strings.CutPrefix(m.sum, "h1:"); ok {
		// The hash of go.sum is the SHA-256 of a list of the module's files.
		digest, err := base64.StdEncoding.DecodeString(hash)
		if err != nil {
			return c, fmt.Errorf("module %s: sum %q: %w", m.path, m.sum, err)
		}
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(digest)}}
	}
	return c, nil
}

// packageURL names a module as the package-url specification has it for Go.
func packageURL(module, version string) string {
	return "pkg:golang/" + module + "@" + strings.ReplaceAll(version, "+", "%2B")
}

func licenses(ids []string) *cdx.Licenses {
	var list cdx.Licenses
	for _, id := range ids {
		list = append(list, cdx.LicenseChoice{License: &cdx.License{ID: id}})
	}
	return &list
}
