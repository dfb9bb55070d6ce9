package main

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/google/licenseclassifier/v2/assets"
)

// ownLicense is the program's.
const ownLicense = "Apache-2.0"

// classify finds the SPDX ids of each module's licence files.
func classify(modules []*module) error {
	classifier, err := assets.DefaultClassifier()
	if err != nil {
		return fmt.Errorf("load the known licences: %w", err)
	}
	ids := map[string][]string{} // by text: most modules share few
	for _, m := range modules {
		found := map[string]bool{}
		for name, text := range m.files {
			if _, done := ids[text]; !done {
				ids[text] = []string{}
				for _, match := range classifier.Match([]byte(text)).Matches {
					if match.MatchType == "License" {
						ids[text] = append(ids[text], match.Name)
					}
				}
			}
			if len(ids[text]) == 0 && isLicense(name) {
				return fmt.Errorf("module %s %s: %s is no known licence", m.path, m.version, name)
			}
			for _, id := range ids[text] {
				found[id] = true
			}
		}
		if len(found) == 0 {
			return fmt.Errorf("module %s %s: no known licence in %q", m.path, m.version, slices.Sorted(maps.Keys(m.files)))
		}
		m.licenses = slices.Sorted(maps.Keys(found))
	}
	return nil
}

// isLicense reports whether a file must have a licence: notices and patent
// grants have none.
func isLicense(name string) bool {
	base := strings.ToLower(path.Base(name))
	return strings.HasPrefix(base, "licen") || strings.HasPrefix(base, "copying")
}

// checkLicense compares the licences of all modules and the program's own with
// those that an expression names.
func checkLicense(modules []*module, expression string) error {
	found := map[string]bool{ownLicense: true}
	for _, m := range modules {
		for _, id := range m.licenses {
			found[id] = true
		}
	}
	if want := strings.Join(slices.Sorted(maps.Keys(found)), " AND "); want != expression {
		return fmt.Errorf("the licence is stated as %q and must be %q; if the project accepts that, state it (license in packaging/nfpm.yaml, AGENT_LICENSE in the Makefile)", expression, want)
	}
	return nil
}
