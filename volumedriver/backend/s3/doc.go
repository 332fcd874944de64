// Package s3 keeps a vPool's objects in a bucket of Amazon S3 or of a store that
// speaks its protocol.
//
// # Keys
//
//	<prefix>/<name>!     object <name>; without a prefix, <name>!
//
// The last byte keeps two objects apart of which one's name begins the other's:
// stores that map keys to files cannot hold v/a beside v/a/b. It sorts before every
// byte of a name, so keys sort as names do. Keys without it, or whose rest is not a
// name, belong to somebody else: they are not listed and never touched.
//
// # Invariants
//
//	K1  One call is one request, and never a second attempt of it: not here, not in
//	    the library, not in the transport. Only a read whose old connection broke
//	    before an answer came goes out again, once and on a new one; and Stat asks
//	    something else: whether the bucket is there, which the refusal of a HEAD does
//	    not tell.
//	K2  An object is absent when the store says so in its own words (NoSuchKey). A
//	    404 without them, from a proxy for one, is a failure that is worth a retry.
//	K3  Bytes of a range are used only if the answer says that they are that range.
//	K4  A Put succeeded when the store confirmed a checksum of what arrived: CRC32C
//	    where it can (Found.Checksums), else MD5, which it compares itself.
//	K5  What an answer may take is bounded: error 64 KiB, page of a list 16 MiB,
//	    header 1 MiB, object what was asked for; a longer one is a failure, not read
//	    on. Time is bounded by the caller's context.
//
// An object goes up in one PUT; SCOs are far below the 5 GiB that one may have.
// Versions, storage classes and life cycles of the bucket are the administrator's;
// Detect warns of those that harm.
package s3
