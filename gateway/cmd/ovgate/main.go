// Command ovgate runs a storage node (ovgate serve) and operates nodes: one verb
// per resource and action of the API (gateway/api/openapi.yaml), which is all it
// uses.
//
//	ovgate [--data DIR | --url URL [--ca FILE] [--token-file FILE]] RESOURCE VERB ...
//
// Which node: --data or OVGATE_DATA, a data directory on this machine (no
// sign-in: the owner of DIR/admin.token is the operator); else --url or
// OVGATE_URL with OVGATE_TOKEN and OVGATE_CA; else the default data directory.
//
// Output is a table, or with -o json the API's own object; lists are
// {"items": [...], "next": null} with the items of all pages. Messages,
// questions and errors go to standard error.
//
//	exit code  meaning
//	0          done
//	1          failed, or no answer
//	2          wrong usage; nothing was asked of the node
//	3          not found
//	4          refused: invalid, or in conflict with the state of an object
//	5          not signed in, or not allowed
//
// Invariants
//  1. Passwords, tokens and secrets are never arguments: they come from a prompt
//     without echo, standard input, a file or the environment.
//  2. What loses data asks first when standard input is a terminal, unless --yes.
//  3. Text that came from a node is printed without control characters.
//  4. Sizes are exact: bytes, or a number with a unit that gives whole bytes.
//
// It holds no logic of the product: what is allowed is decided by the node.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/openvstorage/ovgate/internal/procs"
)

func main() {
	procs.ForDisks()
	os.Exit(mainCode())
}

// mainCode runs the command line and returns the exit code. The first SIGINT or
// SIGTERM ends the context, the second one the process.
func mainCode() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], system())
}
