// Package auth decides who a caller is and what the caller may do. gateway/api
// asks it for every request; gateway/node for the set-up token and the node's
// own token.
//
// # Secrets and their resting places
//
//	set-up token   ovs_...   printed once at a start without users; sha-256 in kv
//	password                 argon2id PHC string in kv
//	bearer token   ovg_...   256 random bits; sha-256 in kv; shown once
//	client secret  ovc_...   256 random bits; sha-256 in kv; shown once
//	refresh token  ovr_...   256 random bits behind the id of its sign-in; sha-256 in kv
//	cookie                   256 random bits; sha-256 in kv; HttpOnly
//	CSRF token               256 random bits; sha-256 in kv; sent back by the page in a header
//
// A plain hash suffices for 256 random bits: there is nothing to guess.
//
// # Invariants
//
//	A1  No user, no session and no password exist before the set-up token was
//	    presented; it makes one user and is consumed in that transaction.
//	A2  No secret is logged, put in an error or stored in plain.
//	A3  Unknown user and wrong password take the same path and the same time:
//	    both cost one argon2id run.
//	A4  At most hashSlots argon2id runs at once, however many callers there
//	    are; a caller waits or gives up, it does not add memory.
//	A5  Somebody with a password has role manage over everything, by itself or by a
//	    group, after every change of users, groups and members: an external user is
//	    none without its provider.
//	A6  Ending a user, or changing its password or role, ends its sessions and its
//	    sign-ins through clients.
//	A7  A user is external, known by issuer and subject of a sign-in provider, or
//	    has a password; never both. Who comes from the provider under the name of
//	    another user is refused. Sessions and tokens of an external user count
//	    while that provider is set, has not refused the user since, and vouched
//	    for the user within externalLimit (external.go).
//	A8  What a user may is what it and its groups are given together, added up at
//	    each request: a change counts at once. Grants name objects by id: they
//	    follow a rename, give nothing once the object is gone, and are not those
//	    of another object that takes its name.
//	A9  A token may what both it and its user may now. One that an OAuth2 client is
//	    given has no more than the client.
//	A10 Of a sign-in through a client one refresh token is in force. Another one
//	    that was, ends the sign-in with its access tokens.
//
// It does not know HTTP: cookies and headers are gateway/api's.
package auth
