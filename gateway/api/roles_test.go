package api

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestEveryOperationHasARule: an operation that somebody adds to openapi.yaml
// without deciding who may call it fails here, and so does a public rule that
// the document does not declare.
func TestEveryOperationHasARule(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(Spec(), &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for path, item := range doc.Paths {
		for method, node := range item {
			if method == "parameters" {
				continue
			}
			var op struct {
				ID       string       `yaml:"operationId"`
				Security *[]yaml.Node `yaml:"security"`
				Params   []struct {
					Ref string `yaml:"$ref"`
				} `yaml:"parameters"`
			}
			if err := node.Decode(&op); err != nil {
				t.Fatal(err)
			}
			seen[op.ID] = true
			r, ok := rules[op.ID]
			if !ok {
				t.Errorf("%s %s: operation %s has no rule in roles.go", method, path, op.ID)
			}
			if declared := op.Security != nil && len(*op.Security) == 0; r.public != declared {
				t.Errorf("%s: public is %v, openapi.yaml says %v", op.ID, r.public, declared)
			}
			if !r.public && r.role == "" {
				t.Errorf("%s: the rule names no role", op.ID)
			}
			keyed := false
			for _, p := range op.Params {
				keyed = keyed || p.Ref == "#/components/parameters/IdempotencyKey"
			}
			if keyed != creates[op.ID] {
				t.Errorf("%s: takes an Idempotency-Key %v, is honoured %v", op.ID, keyed, creates[op.ID])
			}
		}
	}
	for op := range rules {
		if !seen[op] {
			t.Errorf("rule %s belongs to no operation", op)
		}
	}
}
