// Package build bundles the console with esbuild as a Go library; no Node takes part.
//
// It is called by the command build/uibuild (`make ui`), which writes ui/dist, and by its own tests,
// which compare ui/dist with a bundle made in memory and check the size of the script and the
// contrast of the colour tokens.
//
//	src/main.tsx, css, fonts --esbuild--> dist/assets/app.js, app.css, *.woff2
//	src/plot.ts              --esbuild--> dist/assets/plot.js, the charts, loaded on demand
//	src/pages/object.ts      --esbuild--> dist/assets/object-HASH.js, pages loaded when one is opened first
//	src/pages/integration.ts --esbuild--> dist/assets/integration-HASH.js, as well
//	src/pages/operations.ts  --esbuild--> dist/assets/operations-HASH.js, as well
//	                                      dist/assets/chunk-HASH.js, what they share with app.js
//	src/index.html, src/icon.svg --copy--> dist/index.html, dist/assets/icon.svg
//	src/**                   --readTexts--> strings/en.json, all texts (texts.go)
//	strings/LANGUAGE.json    --check--> dist/assets/lang-LANGUAGE.json
//
// Invariants
//  1. The output depends on the files of ui/src, ui/strings and ui/third_party only: no clock, no absolute path,
//     no network. Two runs are byte-identical.
//  2. Names of what index.html names are fixed. Scripts that share code with app.js have the hash of their
//     contents in the name: a tab that is older than an update never gets a newer half of itself.
//
// It does not check types; that is tsc's work (ui/README.md).
package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/evanw/esbuild/pkg/api"
)

// copied are the files of src that reach dist as they are: path in src, path in dist.
var copied = map[string]string{
	"index.html": "index.html",
	"icon.svg":   "assets/icon.svg",
}

// Options returns the esbuild options that bundle root/src into root/dist/assets. root is the
// absolute path of the folder ui. Nothing is written unless the caller sets Write.
func Options(root string) api.BuildOptions {
	list, _ := json.Marshal(languages(root)) // strings are always JSON
	return api.BuildOptions{
		AbsWorkingDir: root,
		EntryPointsAdvanced: []api.EntryPoint{
			{InputPath: "src/main.tsx", OutputPath: "app"},
			{InputPath: "src/plot.ts", OutputPath: "plot"}, // loaded by import(), so that it keeps its name
		},
		Outdir:            "dist/assets",
		AssetNames:        "[name]",
		ChunkNames:        "[name]-[hash]",
		PublicPath:        "/assets",
		Bundle:            true,
		Splitting:         true,
		Format:            api.FormatESModule,
		Target:            api.ES2022,
		Loader:            map[string]api.Loader{".woff2": api.LoaderFile},
		MinifyWhitespace:  true,
		MinifyIdentifiers: true,
		MinifySyntax:      true,
		LegalComments:     api.LegalCommentsEndOfFile,
		JSX:               api.JSXAutomatic,
		JSXImportSource:   "preact",
		NodePaths:         []string{filepath.Join(root, "third_party")},
		Define:            map[string]string{"LANGUAGES": string(list)},
	}
}

// Bundle makes the whole of dist and the catalogue of texts in memory: slash-separated path below root, contents. root is the
// absolute path of the folder ui. The error lists every message of esbuild with file and line, every text that has no tag, and
// what is wrong with translations.
func Bundle(root string) (map[string][]byte, error) {
	files, err := translations(root)
	if err != nil {
		return nil, err
	}
	result := api.Build(Options(root))
	if len(result.Errors) > 0 {
		return nil, messages(result.Errors)
	}
	for _, f := range result.OutputFiles {
		name, err := filepath.Rel(root, f.Path)
		if err != nil {
			return nil, fmt.Errorf("place of bundled file %s: %w", f.Path, err)
		}
		files[filepath.ToSlash(name)] = f.Contents
	}
	for from, to := range copied {
		b, err := os.ReadFile(filepath.Join(root, "src", from))
		if err != nil {
			return nil, fmt.Errorf("read a file that is copied into dist: %w", err)
		}
		files["dist/"+to] = b
	}
	return files, nil
}

func messages(list []api.Message) error {
	var all []error
	for _, m := range list {
		if m.Location == nil {
			all = append(all, errors.New(m.Text))
			continue
		}
		all = append(all, fmt.Errorf("%s:%d:%d: %s", m.Location.File, m.Location.Line, m.Location.Column, m.Text))
	}
	return errors.Join(all...)
}

// Write replaces root/dist and the catalogue by files: it writes what changed and removes what is not in files, so
// that an asset no longer used does not stay embedded.
func Write(root string, files map[string][]byte) error {
	present, err := List(root)
	if err != nil {
		return err
	}
	for name := range present {
		if _, ok := files[name]; !ok {
			if err := os.Remove(filepath.Join(root, filepath.FromSlash(name))); err != nil {
				return fmt.Errorf("remove an unused file of dist: %w", err)
			}
		}
	}
	for name, contents := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make a folder of dist: %w", err)
		}
		if string(present[name]) == string(contents) {
			continue
		}
		if err := os.WriteFile(path, contents, 0o644); err != nil {
			return fmt.Errorf("write a file of dist: %w", err)
		}
	}
	return nil
}

// List reads what root/dist holds now, and the catalogue, in the form that Bundle returns. What is missing is empty.
func List(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	read := func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = os.ReadFile(path)
		return err
	}
	for _, made := range []string{"dist", stringsDir + "/" + english + ".json"} {
		if err := filepath.WalkDir(filepath.Join(root, filepath.FromSlash(made)), read); err != nil {
			return nil, fmt.Errorf("read %s: %w", made, err)
		}
	}
	return files, nil
}
