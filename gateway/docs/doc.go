// Package docs holds documents about the whole product that its tests keep true:
//
//	complaints.md  what users and developers of Open vStorage complained about, how ovgate
//	               answers it, and the test that shows it
//
// # Invariants
//
//	D1  A test that a document names exists, in the folder that it names.
//
// It does not say how to use ovgate; the README does.
package docs
