// Package encrypted keeps the objects of a vPool secret from who has the store: it
// is a backend.Store around another one, with one key for the vPool.
//
// # Format
//
//	object = header | piece 0 | piece 1 | ...
//
//	header  40 bytes  magic "ovgE" | version 1 | 3 bytes zero | key id (8)
//	                  | plain size (8, little endian) | MAC (16)
//	piece             nonce (12) | ciphertext of up to 4096 bytes | tag (16)
//
// Every piece but the last holds 4096 bytes, so that where a byte is follows from
// its offset alone and a read of a range is one request. Names, sizes and times of
// objects stay visible.
//
// From the vPool's key (32 random bytes) HMAC-SHA256 derives, for each object name,
// the AES-256-GCM key of its pieces, the key that nonces come from, and the key of
// the header's MAC. A piece's nonce is HMAC-SHA256(nonce key, number | plain bytes),
// cut to 12 bytes; its additional data is the piece's number.
//
// # Invariants
//
//	C1  The same bytes under the same name are stored as the same bytes: a retry is
//	    one (obligation S2 of package backend).
//	C2  A nonce repeats under a key only with the same piece of the same object, even
//	    if an engine broke the rule that a name has one content.
//	C3  A piece that was changed, moved within its object or taken from another one
//	    does not verify: ErrCorrupt, never wrong bytes. Get also notices a missing end.
//	C4  A store is opened with the key it was made with or not at all: the object
//	    ovgate.key says which. Nothing is put into a store that holds other objects.
package encrypted
