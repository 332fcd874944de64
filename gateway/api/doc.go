// Package api serves the node's HTTP interface: the operations of openapi.yaml,
// the event stream, /metrics, /healthz and the web UI. It is the only package
// that knows echo. gateway/node makes a Server and runs it.
//
//	openapi.yaml ──generate──► api.gen.go (types, routes)  codegen of client and UI types
//	request ─► limits ─► identity, role, CSRF ─► strict JSON ─► handler ─► control/auth/model
//
// # Invariants
//
//	H1  Every operation has a rule (rules in roles.go); a request is refused
//	    before its body is read when its caller may not make it.
//	H2  Every answer below /api is JSON, refusals and defects too, with a code, a
//	    request id and no secret but in publish, token and set-up answers.
//	H3  A request has bounds: header and body bytes, time to read, time to answer.
//	H4  A create with an Idempotency-Key takes effect once within a day.
//	H5  A browser's changing request carries its CSRF token; the cookie alone does
//	    not do.
//	H6  What another node serves, that node is asked about, once, as the caller who
//	    is known here. Only a node of the cluster, by its certificate, says who asks.
//	H7  A change is in the audit log before it is made and, with its outcome, before it is
//	    answered, without secrets. Refused attempts of whom nobody knows are bounded there.
//
// It decides nothing about vDisks: that is gateway/control.
package api
