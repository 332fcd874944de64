// Command tsgen writes TypeScript types for an OpenAPI 3.0 document, so that the
// UI is checked against the API without a Node tool chain. go generate in
// gateway/api calls it:
//
//	tsgen [-o FILE] openapi.yaml
//
// The output holds, sorted, so that the same document gives the same bytes:
//
//	export type NAME = ...;            one per component schema
//	export interface Ops {             one entry per operation
//	  "GET /vdisks/{vdisk}": {
//	    path: { "vdisk": string };
//	    query: { };
//	    body: undefined;
//	    res: VDisk;                    answer of 200, 201 or 202; void for 204
//	  };
//	}
//	export const idempotent = [...]    operations that take an Idempotency-Key
//
// Invariants
//  1. A schema it cannot express stops it with the schema's place; it never
//     writes a type that is wider than the document.
//  2. Only JSON bodies are typed; a stream or a file is typed string.
//
// It does not validate: kin-openapi does, before.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/getkin/kin-openapi/openapi3"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tsgen:", err)
		os.Exit(1)
	}
}

// run reads the document named in args and writes its types to -o or stdout.
func run(args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("tsgen", flag.ContinueOnError)
	out := flags.String("o", "", "file to write; standard output when empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("want one OpenAPI document, got %d arguments", flags.NArg())
	}
	doc, err := openapi3.NewLoader().LoadFromFile(flags.Arg(0))
	if err != nil {
		return fmt.Errorf("load %s: %w", flags.Arg(0), err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		return fmt.Errorf("validate %s: %w", flags.Arg(0), err)
	}
	text, err := generate(doc)
	if err != nil {
		return fmt.Errorf("%s: %w", flags.Arg(0), err)
	}
	if *out == "" {
		_, err = io.WriteString(stdout, text)
		return err
	}
	return os.WriteFile(*out, []byte(text), 0o644)
}
