// Package remote is what all stores have in common that are reached over a network
// and belong to somebody else: connections, errors, limits that follow the store's
// latency, counters. Packages s3 and swift speak the protocols; Store stands before
// one of theirs, below the engine's own retries.
//
//	call -> turn (limiter) -> pause (Retry-After) -> bandwidth -> breaker -> request
//	                                                     reads: a second one when late
//
// # Invariants
//
//	R1  A call is one request, or none, or for a ReadAt two that are the same, of which
//	    the first good answer counts. Nothing else is asked twice.
//	R2  Of 100 reads at most 5 have a second request, and it takes a turn that nobody
//	    waits for.
//	R3  When ReadAt returns, nothing writes into the caller's buffer any more.
//	R4  After the store asked for a pause, no request of any kind begins before its
//	    end, which is at most 5 minutes away.
//	R5  While a store is taken to be down, one request at a time asks it.
//	R6  A store that was replaced is closed after its last call ended.
package remote
