// Package docs holds documents about the whole product that its tests keep true:
//
//	complaints.md  what users and developers of Open vStorage complained about, how ovgate
//	               answers it, and the test that shows it
//	operations.md  sizing, tuning, what survives what, capacity, recovery, security
//	architecture.md     rooms, path of a write, ownership, formats: for engineers
//	migration.md        terms, commands and defaults of Open vStorage, and ours
//	troubleshooting.md  what is seen, its cause, and what to do
//
// They are part of the program: gateway/api serves them, and the console shows them.
//
// # Invariants
//
//	D1  A test or drill that a document names exists, in the folder that it names.
//	D2  What a document links to is there. Verbs and flags in its console blocks exist
//	    (scripts/e2e).
//	D3  The numbers of formats in architecture.md are those of the code (gateway/node
//	    TestGoldenFormats).
package docs
