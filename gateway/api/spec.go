package api

import _ "embed"

//go:generate go tool oapi-codegen -config codegen-server.yaml -o api.gen.go openapi.yaml
//go:generate go tool oapi-codegen -config codegen-client.yaml -o ../../internal/client/client.gen.go openapi.yaml
//go:generate go run ./tsgen -o ../../ui/src/api/gen.ts openapi.yaml

//go:embed openapi.yaml
var spec []byte

// BasePath is where the operations of Spec are served.
const BasePath = "/api/v1"

// Spec returns the OpenAPI document of this API (YAML); a copy.
func Spec() []byte { return append([]byte(nil), spec...) }
