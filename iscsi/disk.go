package iscsi

import "errors"

// OpKind is what an Op asks of a Disk.
type OpKind uint8

// Operations. Offsets and lengths are in bytes and multiples of 512. Only a Disk
// that is a Reserver is given OpReserve, which has neither.
const (
	OpRead            OpKind = iota + 1 // fill Data from Offset
	OpWrite                             // store Data at Offset
	OpZero                              // make [Offset, Offset+Length) read as zeros
	OpUnmap                             // give the range back; it reads as zeros afterwards (LBPRZ=1)
	OpFlush                             // everything completed before is durable when this completes
	OpCompareAndWrite                   // Data = compare bytes then write bytes, equal halves; atomic
	OpOrWrite                           // store the OR of Data and what is at Offset; atomic
	OpReserve                           // keep Data, of any length up to MaxReservationBytes, as the unit's reservation state
)

// Op is one operation on a Disk. The submitter owns the Op and Data, keeps both
// untouched from Submit until Complete, and may reuse them afterwards.
type Op struct {
	Kind   OpKind
	FUA    bool
	Offset int64
	Length int64 // OpZero, OpUnmap; for the others it is len(Data)
	Data   []byte

	// Err is the result, set before Complete: nil, or an error that matches
	// one of the sentinels below; any other error is a hardware error.
	Err error
	// MiscompareAt is the byte offset within the compare half of the first
	// difference, when Err is ErrMiscompare.
	MiscompareAt int
	// BadOffset is where on the disk a medium or hardware error is, in bytes. The
	// submitter sets it to Offset; a Disk that knows better moves it, within the
	// range of the Op.
	BadOffset int64

	// Done receives the completed Op. It must not block.
	Done Completer
}

// Completer is told when an Op is complete.
type Completer interface{ Complete(*Op) }

// Withdrawer is a Completer that knows whether its Op is still wanted. A Disk that made
// one wait asks before it lets it take effect, and else fails it with ErrAborted (O4).
type Withdrawer interface{ Withdrawn() bool }

// Results of an Op that have a SCSI meaning of their own.
var (
	// ErrBusy: try again later (journal full beyond stall_timeout, suspended): BUSY.
	ErrBusy = errors.New("iscsi: disk busy")
	// ErrMiscompare: OpCompareAndWrite found other data: MISCOMPARE.
	ErrMiscompare = errors.New("iscsi: miscompare")
	// ErrReadOnly: the disk takes no writes: DATA PROTECT.
	ErrReadOnly = errors.New("iscsi: disk is read-only")
	// ErrGone: the disk is offline, fenced or moved: NOT READY; the nexus is dropped.
	ErrGone = errors.New("iscsi: disk is offline")
	// ErrMedium: unrecoverable data at this range: MEDIUM ERROR.
	ErrMedium = errors.New("iscsi: medium error")
	// ErrNoSpace: thin space is exhausted: DATA PROTECT, SPACE ALLOCATION FAILED.
	ErrNoSpace = errors.New("iscsi: no space")
	// ErrAborted: the command was dropped before it took effect: ABORTED COMMAND.
	ErrAborted = errors.New("iscsi: command aborted")
)

// Geometry describes a Disk.
type Geometry struct {
	Size          int64 // bytes, multiple of ClusterSize
	ClusterSize   int   // bytes; physical block, UNMAP granularity and alignment
	WriteCache    bool  // WCE: completed writes may be volatile until OpFlush
	ReadOnly      bool
	MaxUnmapBytes int64 // longest OpUnmap or OpZero that completes promptly; 0: no limit
	// AtomicBytes is the longest OpWrite that is atomic (D7), any alignment; 0: none is,
	// and there is no WRITE ATOMIC.
	AtomicBytes int64
}

// Disk is the device side of a logical unit, implemented by the gateway over a
// vDisk. Obligations:
//
//	D1  Submit never blocks for longer than memory access; what must wait is done
//	    elsewhere and completed later from another goroutine. It may complete the
//	    Op before it returns.
//	D2  Every submitted Op is completed exactly once, in any order.
//	D3  An Op that changes data and completed with nil is durable unless
//	    Geometry.WriteCache is set and FUA is not. A failed one may have taken effect,
//	    or not, per whole cluster; never partly within 512 bytes.
//	D4  Ops submitted after the completion of another see its effect. Ops in flight
//	    together are ordered as if one after the other, in some order.
//	D5  A read never returns bytes whose checksum did not verify: it fails instead.
//	D6  Geometry may grow between calls and never shrinks.
//	D7  OpCompareAndWrite and OpOrWrite read and write as one: no other Op, from
//	    whatever submitter, takes effect on their range in between. They, and an
//	    OpWrite of up to Geometry.AtomicBytes, take effect as a whole or not at all:
//	    for every OpRead, after a failure, and after a crash.
type Disk interface {
	Geometry() Geometry
	Submit(op *Op)
}

// Reserver is a Disk that keeps the reservation state of its logical unit. Over
// another one persistent reservations work, but APTPL is refused.
//
//	D7  An OpReserve that completed with nil is durable, whatever WriteCache says. It
//	    takes effect as a whole: after a crash the state is that of the last completed
//	    OpReserve or of one that was in flight. It is ordered with writes (D4): when
//	    it completed before a write was submitted, no crash keeps the write and
//	    forgets the state.
//	D8  The state is the disk's own: it moves with it to another target or node.
type Reserver interface {
	// Reservation returns the state that the last completed OpReserve stored, in this
	// process or before; empty if none was. The caller does not change the bytes.
	Reservation() []byte
}

// Provisioner is a Disk that can tell where it holds data; GET LBA STATUS reports
// all blocks of another one as mapped.
type Provisioner interface {
	// Allocated reports whether the cluster at off holds data, and for how many
	// bytes from off on, within the disk, that answer holds: at least to the end of
	// the cluster; it may stop short of the next change. It does no I/O.
	Allocated(off int64) (mapped bool, n int64)
}

// SpaceReporter is a Disk that knows how much thin space there is: LOG SENSE page
// 0Ch, the threshold of mode page 1Ch/02h. It does no I/O.
type SpaceReporter interface{ Space() Space }

// Space is the thin space of a Disk, in bytes.
type Space struct {
	Used      int64 // that the Disk takes
	Available int64 // that it can still take, shared with others perhaps; negative: not known, nothing is reported
	// Threshold is the amount of Available below which initiators are warned
	// (Server.SpaceThreshold); 0: never.
	Threshold int64
}
