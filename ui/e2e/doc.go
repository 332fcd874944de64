// Package e2e tests the console as a user has it: a real browser, the real node, no fake between them.
//
//	go test ./ui/e2e ── starts ──► node (gateway/node) on loopback, empty data directory
//	      │                            ▲
//	      └── drives ──► chromium ─────┘  /, /api/v1, /api/v1/events
//
// The tests share one browser; each has a page with cookies and storage of its own, and a node of its own. Where a
// flow is not about signing in or about an address that is opened, its page gets a session from the API (signedIn) and goes
// from page to page as links do (to).
//
// Every state the flow stops at is checked by axe (WCAG 2.2 A and AA), and at the end the browser's console
// must hold no error, warning or exception. chromium is Debian's; without it the tests fail where CI is set or
// E2E=required, and are skipped elsewhere. SHOTS=DIR keeps pictures.
//
// It does not test the API's rules (gateway/api does) nor what a program cannot judge: reading order, wording,
// looks.
package e2e
