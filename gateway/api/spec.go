package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/labstack/echo/v4"
	"go.yaml.in/yaml/v3"
)

//go:generate go tool oapi-codegen -config codegen-server.yaml -o api.gen.go openapi.yaml
//go:generate go tool oapi-codegen -config codegen-client.yaml -o ../../internal/client/client.gen.go openapi.yaml
//go:generate go run ./tsgen -o ../../ui/src/api/gen.ts openapi.yaml

//go:embed openapi.yaml
var spec []byte

// BasePath is where the operations of Spec are served.
const BasePath = "/api/v1"

// Spec returns the OpenAPI document of this API (YAML); a copy.
func Spec() []byte { return append([]byte(nil), spec...) }

func (s *Server) getSpec(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/yaml", spec)
}

func (s *Server) getSpecJSON(c echo.Context) error {
	b, err := specJSON()
	if err != nil {
		return err
	}
	return c.JSONBlob(http.StatusOK, b)
}

// specJSON is the document as JSON, its parts in the order in which they are written, with the
// role that each operation takes.
var specJSON = sync.OnceValues(func() ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(spec, &doc); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	root := doc.Content[0]
	for _, path := range values(member(root, "paths")) {
		for _, op := range values(path) {
			if id := member(op, "operationId"); id != nil {
				op.Content = append(op.Content, word("x-role"), word(roleWord(id.Value)))
			}
		}
	}
	var out bytes.Buffer
	if err := specNode(&out, root); err != nil {
		return nil, fmt.Errorf("openapi.yaml: %w", err)
	}
	return out.Bytes(), nil
})

// roleWord is what an operation takes, in one word.
func roleWord(op string) string {
	switch r := rules[op]; {
	case r.public:
		return "none"
	case r.nodes:
		return "node"
	default:
		return string(r.role)
	}
}

func word(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// member is the value of a mapping's key, nil when there is none.
func member(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// values are those of a mapping.
func values(n *yaml.Node) (out []*yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 1; i < len(n.Content); i += 2 {
		out = append(out, n.Content[i])
	}
	return out
}

// specNode writes a node as JSON, in its order.
func specNode(out *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode:
		out.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				out.WriteByte(',')
			}
			key, err := json.Marshal(n.Content[i].Value) // "200" and 200 are one name
			if err != nil {
				return err
			}
			out.Write(append(key, ':'))
			if err := specNode(out, n.Content[i+1]); err != nil {
				return err
			}
		}
		out.WriteByte('}')
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, e := range n.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := specNode(out, e); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	default:
		var v any
		if err := n.Decode(&v); err != nil {
			return err
		}
		b, err := json.Marshal(v)
		out.Write(b)
		return err
	}
	return nil
}
