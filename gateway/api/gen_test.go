package api_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestGenerated fails when a generated file is not what openapi.yaml gives.
func TestGenerated(t *testing.T) {
	out := t.TempDir()
	for _, g := range []struct {
		file string   // committed file, also the name in the failure
		args []string // of go, before -o FILE openapi.yaml
	}{
		{"api.gen.go", []string{"tool", "oapi-codegen", "-config", "codegen-server.yaml"}},
		{"../../internal/client/client.gen.go", []string{"tool", "oapi-codegen", "-config", "codegen-client.yaml"}},
		{"../../ui/src/api/gen.ts", []string{"run", "./tsgen"}},
	} {
		fresh := filepath.Join(out, filepath.Base(g.file))
		text, err := exec.Command("go", append(g.args, "-o", fresh, "openapi.yaml")...).CombinedOutput()
		if err != nil {
			t.Fatalf("generate %s: %v\n%s", g.file, err, text)
		}
		want, err := os.ReadFile(fresh)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(g.file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what openapi.yaml gives; run go generate ./gateway/api and commit it", g.file)
		}
	}
}
