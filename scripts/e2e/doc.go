// Package e2e tests the repository as a newcomer meets it: `make run` and the
// command it prints, the peers, and what README.md says to type. It has no code
// of its own; see the tests.
package e2e
