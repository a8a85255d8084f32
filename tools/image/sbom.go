package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// SPDX 2.3 in JSON, as far as it is used.
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		License       string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Version       string         `json:"versionInfo"`
		Location      string         `json:"downloadLocation"`
		FilesAnalyzed bool           `json:"filesAnalyzed"`
		Concluded     string         `json:"licenseConcluded"`
		Declared      string         `json:"licenseDeclared"`
		Copyright     string         `json:"copyrightText"`
		Purpose       string         `json:"primaryPackagePurpose,omitempty"`
		Checksums     []spdxChecksum `json:"checksums,omitempty"`
		Refs          []spdxRef      `json:"externalRefs,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

const noAssertion = "NOASSERTION"

// sbom tells what a binary was made of, as the binary itself tells it.
func sbom(info *buildinfo.BuildInfo, binary []byte, platform, version string, created time.Time) ([]byte, error) {
	sum := sha256.Sum256(binary)
	digest := hex.EncodeToString(sum[:])
	doc := spdxDocument{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "triptych " + version + " " + platform,
		Namespace: fmt.Sprintf("https://spdx.org/spdxdocs/triptych-%s-%s", version, digest),
		Creation:  spdxCreation{created.UTC().Format(time.RFC3339), []string{"Organization: the Triptych authors", "Tool: triptych-tools-image"}},
	}
	program := spdxPackage{
		ID: "SPDXRef-triptych", Name: info.Main.Path, Version: version, Location: noAssertion, Concluded: ourLicence, Declared: ourLicence,
		Copyright: "Copyright the Triptych authors", Purpose: "APPLICATION", Checksums: []spdxChecksum{{"SHA256", digest}}, Refs: golang(info.Main.Path, version),
	}
	model := spdxPackage{
		ID: "SPDXRef-starter", Name: "triptych-starter-model", Version: version, Location: noAssertion, Concluded: ourLicence, Declared: ourLicence,
		Copyright: "Copyright the Triptych authors; trained on Noto Emoji artwork, Copyright Google", Purpose: "OTHER",
	}
	doc.Packages = []spdxPackage{program, model}
	doc.Relationships = []spdxRelationship{{doc.ID, "DESCRIBES", program.ID}, {doc.ID, "DESCRIBES", model.ID}}
	for _, m := range append(modules(info), debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}) {
		p := spdxPackage{
			ID: "SPDXRef-" + spdxID(m.Path), Name: m.Path, Version: m.Version, Location: noAssertion, Concluded: noAssertion, Declared: noAssertion,
			Copyright: noAssertion, Refs: golang(m.Path, m.Version),
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, spdxRelationship{program.ID, "DEPENDS_ON", p.ID})
	}
	out, err := json.MarshalIndent(doc, "", " ")
	return append(out, '\n'), err
}

// modules are those a binary was linked with, replacements in the place of what they replace.
func modules(info *buildinfo.BuildInfo) (all []debug.Module) {
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b debug.Module) int { return cmp.Compare(a.Path, b.Path) })
	return all
}

// golang names a module the way databases of vulnerabilities do.
func golang(path, version string) []spdxRef {
	return []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")}}
}

// spdxID is a module's path in the letters that an identifier may have.
func spdxID(path string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, path)
}
