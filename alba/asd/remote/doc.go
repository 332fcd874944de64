// Package remote carries an osd.OSD over the network: Server lets others use a
// device of this process, Client is a device that lives elsewhere. Both ends of
// the ASD protocol are here; package wire does the framing.
//
// The daemon that owns a disk (alba/asd) runs a Server; whoever reads and writes
// fragments (alba/client, alba/maintenance, the manager) holds a Client for each
// device.
//
// # A connection
//
//	client                                            server
//	   | ---- TLS 1.3, certificate pinned by SHA-256 --> |   (not with Plain)
//	   | hello     {mode, nonce c[32]} ----------------> |
//	   | <------------------- challenge {nonce s[32]}    |
//	   | proof     {mac[32]} --------------------------> |
//	   | <----------------- welcome {mac[32], identity}  |   or refused {failure}
//	   |                                                 |
//	   | request   {time left ms, ...} + values -------> |   one at a time,
//	   | <--------- reply {...} + values, or failure     |   until either closes
//
//	mac = HMAC-SHA256(access key, label of the side | mode | c | s | binding [| identity])
//
// binding is 32 bytes of TLS exporter keying material (RFC 9266 in spirit, with a
// label of our own), so a proof is worth nothing on another TLS connection, even
// to one who stands between; the two labels keep one side from echoing the other.
//
// Where both ends have Clear, which ALPN tells each of the other, they leave TLS right
// after its handshake: all that the picture has below it goes in the clear, the proofs
// bound as before. In Plain mode binding is empty and the nonces alone make each proof
// new: that keeps strangers out, but not one who can change what travels. Plain is for
// tests and benchmarks on loopback.
//
// # Messages
//
// Frames have the magic "OASD" and version 1. Types: 1 hello, 2 challenge, 3 proof,
// 4 welcome, 5 refused; 16 info, 17 stats, 18 get, 19 read, 20 apply, 21 list,
// 22 validate, replies to these with 0x100 added; 0x1ff failure, with
// flag 1 when the connection ends. No other flags. Parts of meta, in
// the encodings of wire.Encoder (u: Uvarint, v: Varint, b: Bytes, s: String):
//
//	info      u time | -> s ID, s Run, u Applies, v Total, v Used, v Limit, v Free, bool Full, s Version
//	stats     u time | -> u * 9, in the order of osd.Stats
//	get       u time | u8 priority, v limit, u count, count * b key
//	                   -> u count, count * {bool there, [u size, u32 CRC]}, values in the body
//	read      u time | u8 priority (0x80: unverified), b key, v offset, u length
//	                   -> bool sum, [u32 CRC of the body: without TLS], the bytes in the body
//	apply     u time | u8 priority, u count, count * {b key, bool equal, [b value]},
//	                   u count, count * {b key, bool set, [u size, u32 CRC]}, values in the body -> nothing
//	list      u time | u8 priority, b prefix, b after, v limit
//	                   -> u count, count * {b key, v size, u32 CRC}
//	validate  u time | b prefix, b after, v limit, v budget
//	                   -> v keys, v bytes, u count, count * b bad key, bool more, [b next]
//	failure, refused   u sentinels (a bit each, in the order of errors.go), s text, b key of the assert
//
// # Invariants
//
//	R1  Nothing of the device is reachable, and no more than handshakeMeta bytes are
//	    taken from a frame, before both sides proved the access key.
//	R2  A connection belongs to one device: its identity was compared when it was
//	    opened, under the server's proof (D8).
//	R3  A connection carries one request at a time, and is used again only when
//	    the reply was read to its end in time. Whatever else happened closes it.
//	R4  A request is sent once (D7). A connection that the server closed while it
//	    was idle is noticed before a request is sent on it.
//	R5  Results outlive the connection; the caller's buffers are not touched after
//	    the call returned: all that moves bytes runs on the caller's goroutine.
//	R6  What the server holds for peers is bounded: connections, those of them that
//	    did not prove the key, and the memory of requests and answers. Memory for
//	    meta is taken before memory for values and never after, so that no two
//	    requests wait for each other.
//	R7  The server closes a connection that is idle, or slow to send a request or to
//	    take an answer, and gives up a request when its caller's time is over.
//	R8  A value of DirectBytes or more lies at a multiple of 4 KiB in the memory
//	    of the server's process when the device gets it, so that it can be
//	    written with O_DIRECT as it is. So does the buffer of a Read.
//
// It does not store anything, spread load over devices, or retry.
package remote

import (
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/wire"
)

// protocol of every connection.
var protocol = wire.Protocol{Magic: [4]byte{'O', 'A', 'S', 'D'}, Version: 1}

// Types of frames.
const (
	typeHello     = 1
	typeChallenge = 2
	typeProof     = 3
	typeWelcome   = 4
	typeRefused   = 5

	typeInfo     = 16
	typeStats    = 17
	typeGet      = 18
	typeRead     = 19
	typeApply    = 20
	typeList     = 21
	typeValidate = 22

	typeReply   = 0x100 // added to the type of the request
	typeFailure = 0x1ff

	flagLast = 1 // of a failure: the server closes the connection
)

const (
	// DirectBytes is the size from which values arrive at the device aligned (R8):
	// smaller ones are kept in the index, and four of five bytes of a buffer stay
	// in use.
	DirectBytes = 16 << 10

	// handshakeMeta bounds the meta of frames before the proof: the longest is a
	// failure with its text.
	handshakeMeta = 1536
	// maxText bounds the text of a failure.
	maxText = 1024
	// maxName bounds an identity, a run and a version: UUIDs and release names.
	maxName = 256

	// maxOverhead bounds what comes with a key in a list of them.
	maxOverhead = 32
	// maxRequestMeta is that of an Apply that compares as much as it may.
	maxRequestMeta = osd.MaxApplyOps*(osd.MaxKeyBytes+osd.MaxAssertBytes+maxOverhead) + 64
	// maxGetMeta is that of a Get of as many keys as it may.
	maxGetMeta = osd.MaxListKeys*(osd.MaxKeyBytes+maxOverhead) + 64
	// maxSmallMeta is that of the other requests: two keys and some numbers.
	maxSmallMeta = 2*osd.MaxKeyBytes + 128
	// maxReplyMeta is that of a full List or Validate.
	maxReplyMeta = osd.MaxListKeys*(osd.MaxKeyBytes+maxOverhead) + 2048
)

var (
	handshakeLimits = wire.Limits{Meta: handshakeMeta}
	requestLimits   = wire.Limits{Meta: maxRequestMeta, Body: osd.MaxApplyBytes}
	replyLimits     = wire.Limits{Meta: maxReplyMeta, Body: osd.MaxValueBytes}
)
