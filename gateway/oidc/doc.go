// Package oidc lets people sign in through an OpenID Connect provider: the
// authorization code flow with PKCE, state and nonce. gateway/api calls it;
// gateway/auth decides what comes of who the provider says somebody is, and
// keeps users and sessions.
//
//	browser                    this node                       provider
//	   │ POST /session/oidc        │ (discovery, cached)          │
//	   │──────────────────────────►│─────────────────────────────►│
//	   │◄── URL, cookie with flow ─│                              │
//	   │ URL (client, scopes, state, nonce, S256 challenge)       │
//	   │─────────────────────────────────────────────────────────►│
//	   │◄── ADDRESS/login/oidc?code&state ────────────────────────│
//	   │ POST /session/oidc/answer │ code, verifier               │
//	   │──────────────────────────►│─────────────────────────────►│
//	   │                           │◄── ID token, access token ───│
//	   │◄── session of ovgate ─────│ (keys, cached; userinfo)     │
//
// # Flow
//
// What belongs to a sign-in that was begun is in the browser alone, in a cookie
// that only nodes of this cluster can open, so that any of them may finish it (gateway/node, TestOidcOverNodes):
//
//	base64url(seal("oidc flow", JSON {state, nonce, verifier, console, returnTo, revision, ends}))
//
// # Invariants
//
//	D1  Nobody is let in by anything but an ID token that came from the token
//	    endpoint for this flow: signed by a key of the provider with an
//	    asymmetric algorithm, of this issuer, for this client, with the flow's
//	    nonce, not expired. A token of the provider is no bearer token of the API.
//	D2  A flow ends within flowLimit, with the browser that began it, once.
//	D3  Tokens and codes of the provider are neither stored nor logged nor told;
//	    the client's secret is sealed for its issuer and goes nowhere else.
//	D4  A provider costs bounded time and memory: answers, their number of keys
//	    and how often it is asked are limited; it is asked over TLS only, and no
//	    redirect of its is followed. Whether it answers matters to nobody else.
//	D5  A browser is sent to the provider's endpoints, to the consoles that are
//	    set, and to paths of this console.
//	D6  Who has no group with a role does not get in. What the provider says of
//	    groups counts anew at each sign-in.
package oidc
