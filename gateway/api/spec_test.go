package api_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v3"

	"github.com/openvstorage/ovgate/gateway/api"
)

// load returns the validated document.
func load(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec())
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestConventions checks what the head of openapi.yaml promises of every
// operation and schema.
func TestConventions(t *testing.T) {
	doc := load(t)
	if doc.Servers[0].URL != api.BasePath {
		t.Errorf("server %s, handlers at %s", doc.Servers[0].URL, api.BasePath)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			key := method + " " + path
			if op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s: operationId, summary or tag is missing", key)
			}
			if def := op.Responses.Default(); def == nil && !strings.HasPrefix(op.OperationID, "GetSpec") {
				t.Errorf("%s: no error answer", key)
			}
			if method == "DELETE" && op.Responses.Value("204") == nil {
				t.Errorf("%s: a delete answers 204", key)
			}
			checkCreate(t, key, op)
			checkList(t, key, op)
		}
	}
	for name, ref := range doc.Components.Schemas {
		checkSchema(t, name, ref.Value)
	}
}

// checkCreate: what makes an object takes an Idempotency-Key, except the first
// user, whose set-up token works once.
func checkCreate(t *testing.T, key string, op *openapi3.Operation) {
	if op.Responses.Value("201") == nil || op.OperationID == "CompleteSetup" {
		return
	}
	if !slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.Name == "Idempotency-Key" }) {
		t.Errorf("%s: a create without Idempotency-Key", key)
	}
}

// checkList: a list has pages, and {items, next}.
func checkList(t *testing.T, key string, op *openapi3.Operation) {
	if !strings.HasPrefix(op.OperationID, "List") {
		return
	}
	s := op.Responses.Value("200").Value.Content.Get("application/json").Schema.Value
	want := 2
	switch op.OperationID {
	case "ListVMs": // it tells besides which vCenters answered
		want = 3
	case "ListJobs", "ListEvents": // and how many run, or from where one goes on, and which nodes did not answer
		want = 4
	}
	if s.Properties["items"] == nil || s.Properties["next"] == nil || len(s.Required) != want {
		t.Errorf("%s: a list is {items, next}", key)
	}
	if op.OperationID == "ListPortals" { // a handful, not worth pages
		return
	}
	var names []string
	for _, p := range op.Parameters {
		names = append(names, p.Value.Name)
	}
	for _, want := range []string{"limit", "cursor", "q"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s: a list without parameter %s", key, want)
		}
	}
}

// checkSchema: answers leave nothing out; times are date-times; what was
// measured says when.
func checkSchema(t *testing.T, name string, s *openapi3.Schema) {
	if !s.Type.Is("object") || len(s.Properties) == 0 {
		return
	}
	input := strings.HasSuffix(name, "Input") || strings.HasSuffix(name, "Patch")
	for field, ref := range s.Properties {
		if !input && name != "Error" && name != "OAuthToken" && !slices.Contains(s.Required, field) {
			t.Errorf("%s.%s of an answer may be missing; make it nullable instead", name, field)
		}
		at := field == "created" || field == "since" || field == "time" || field == "expires" || strings.HasSuffix(field, "At")
		if at && ref.Value.Format != "date-time" {
			t.Errorf("%s.%s is not a date-time", name, field)
		}
	}
}

// TestSpecJSON: the document as JSON is the same as in YAML, in the same order, and says of each
// operation who may call it.
func TestSpecJSON(t *testing.T) {
	s := serve(t)
	res := s.must("GetSpecJSON", nil, "")
	var got, want any
	if err := json.Unmarshal(res.body, &got); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(api.Spec(), &want); err != nil {
		t.Fatal(err)
	}
	roles := 0
	for _, item := range got.(map[string]any)["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			op, is := op.(map[string]any)
			if !is || op["operationId"] == nil {
				continue
			}
			if r, _ := op["x-role"].(string); !slices.Contains([]string{"none", "read", "write", "manage", "node"}, r) {
				t.Errorf("%s %v: role %q", method, op["operationId"], r)
			}
			delete(op, "x-role")
			roles++
		}
	}
	if roles != len(s.ops) {
		t.Errorf("%d operations with a role, want %d", roles, len(s.ops))
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("the JSON is not what openapi.yaml says")
	}
	if text := string(res.body); strings.Index(text, `"/setup"`) > strings.Index(text, `"/vdisks"`) {
		t.Error("paths are not in the order of openapi.yaml")
	}
}
