package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file anew")

// TestGolden compares the types of a document that uses every supported shape.
func TestGolden(t *testing.T) {
	out := filepath.Join(t.TempDir(), "gen.ts")
	if err := run([]string{"-o", out, "testdata/api.yaml"}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/api.ts", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/api.ts")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestRefused checks invariant 1 and the command line.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, schema, want string }{
		{"several allOf", `{allOf: [{type: string}, {type: string}]}`, "schema X: oneOf, anyOf and allOf of several"},
		{"no type", `{description: anything}`, "schema X: schema without a type"},
		{"number enum", `{type: integer, enum: [1, 2]}`, "enum value 1 is not a string"},
		{"bare object", `{type: object}`, "object without properties"},
		{"nested", `{type: object, properties: {p: {type: array, items: {}}}}`, "property p: schema without a type"},
		{"not valid", `{type: nonsense}`, "validate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "x.yaml")
			doc := "openapi: 3.0.3\ninfo: {title: t, version: '1'}\npaths: {}\ncomponents: {schemas: {X: " + c.schema + "}}\n"
			if err := os.WriteFile(name, []byte(doc), 0o600); err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			err := run([]string{name}, &out)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
			if out.Len() > 0 {
				t.Errorf("wrote %q", out.String())
			}
		})
	}
	if err := run(nil, nil); err == nil {
		t.Error("no document: no error")
	}
	if err := run([]string{"testdata/none.yaml"}, nil); err == nil {
		t.Error("missing document: no error")
	}
}
