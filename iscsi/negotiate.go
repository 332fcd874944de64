package iscsi

import (
	"strconv"
	"strings"
)

// Negotiated are the operational values of a session (RFC 7143 section 13).
type Negotiated struct {
	HeaderDigest, DataDigest   bool   // CRC32C
	MaxRecvInitiator           uint32 // what the initiator takes in one PDU
	MaxRecvTarget              uint32 // what the target takes in one PDU
	MaxBurst, FirstBurst       uint32
	InitialR2T, ImmediateData  bool
	MaxOutstandingR2T          uint16
	Time2Wait, Time2Retain     uint16
	ErrorRecoveryLevel         uint8
	MaxConnections             uint16
	DataPDUInOrder, DataSeqInO bool
}

const (
	maxRecvTarget  = 256 << 10 // one Data-Out; larger ones save nothing measurable
	maxBurst       = 1 << 20   // one R2T for the usual largest request
	firstBurst     = 256 << 10 // unsolicited data is held without having been asked for
	minSegment     = 512
	maxSegment     = 1<<24 - 1
	defaultSegment = 8192 // MaxRecvDataSegmentLength when not declared
	loginSegment   = 8192 // data segments before full feature phase
)

func defaultNegotiated() Negotiated {
	return Negotiated{
		MaxRecvInitiator: defaultSegment, MaxRecvTarget: maxRecvTarget,
		MaxBurst: 262144, FirstBurst: 65536, InitialR2T: true, ImmediateData: true,
		MaxOutstandingR2T: 1, Time2Wait: 2, Time2Retain: 20, MaxConnections: 1,
		DataPDUInOrder: true, DataSeqInO: true,
	}
}

const (
	notUnderstood = "NotUnderstood"
	irrelevant    = "Irrelevant"
	rejected      = "Reject"
)

// answerOnly tells whether v can only be an answer, which is not answered again.
func answerOnly(v string) bool { return v == notUnderstood || v == irrelevant || v == rejected }

// negotiation is the operational parameter negotiation of one login.
type negotiation struct {
	n         Negotiated
	discovery bool
	declared  bool // our MaxRecvDataSegmentLength was sent
}

// answer applies one key of the initiator and adds the reply, if the key takes
// one. ok is false when the value is outside the key's range, which the reply
// (Reject) says too.
func (g *negotiation) answer(kv keyValue, w *textWriter) {
	if answerOnly(kv.value) {
		return
	}
	switch kv.key {
	case "HeaderDigest":
		g.digest(kv, &g.n.HeaderDigest, w)
	case "DataDigest":
		g.digest(kv, &g.n.DataDigest, w)
	case "MaxRecvDataSegmentLength": // declarative
		if v, ok := number(kv.value, minSegment, maxSegment); ok {
			g.n.MaxRecvInitiator = v
		} else {
			w.add(kv.key, rejected)
		}
	case "MaxBurstLength":
		g.number(kv, &g.n.MaxBurst, minSegment, maxSegment, maxBurst, w)
	case "FirstBurstLength": // never above MaxBurstLength
		g.number(kv, &g.n.FirstBurst, minSegment, maxSegment, min(firstBurst, g.n.MaxBurst), w)
	case "InitialR2T":
		g.boolean(kv, &g.n.InitialR2T, false, true, w)
	case "ImmediateData":
		g.boolean(kv, &g.n.ImmediateData, true, false, w)
	case "DataPDUInOrder":
		g.boolean(kv, &g.n.DataPDUInOrder, true, true, w)
	case "DataSequenceInOrder":
		g.boolean(kv, &g.n.DataSeqInO, true, true, w)
	case "MaxOutstandingR2T":
		g.small(kv, &g.n.MaxOutstandingR2T, 1, 65535, 1, w)
	case "MaxConnections":
		g.small(kv, &g.n.MaxConnections, 1, 65535, 1, w)
	case "DefaultTime2Wait":
		v, ok := number(kv.value, 0, 3600)
		if !ok {
			w.add(kv.key, rejected)
			return
		}
		g.n.Time2Wait = uint16(max(v, 0)) // the larger of both sides; ours is 0
		w.add(kv.key, strconv.Itoa(int(g.n.Time2Wait)))
	case "DefaultTime2Retain": // nothing is retained at error recovery level 0
		g.small(kv, &g.n.Time2Retain, 0, 3600, 0, w)
	case "ErrorRecoveryLevel":
		if _, ok := number(kv.value, 0, 2); !ok {
			w.add(kv.key, rejected)
			return
		}
		w.add(kv.key, "0")
	case "IFMarker", "OFMarker", "RDMAExtensions":
		w.add(kv.key, "No")
	case "IFMarkInt", "OFMarkInt":
		w.add(kv.key, irrelevant)
	case "TaskReporting":
		w.add(kv.key, "RFC3720")
	case "iSCSIProtocolLevel": // the lower of both sides; 1 is RFC 7143
		v, ok := number(kv.value, 0, 31)
		if !ok {
			w.add(kv.key, rejected)
			return
		}
		w.add(kv.key, strconv.Itoa(int(min(v, 1))))
	default:
		w.add(kv.key, notUnderstood)
	}
}

// digest picks the first value of the initiator's list that we know.
func (g *negotiation) digest(kv keyValue, v *bool, w *textWriter) {
	for _, s := range strings.Split(kv.value, ",") {
		if s == "CRC32C" || s == "None" {
			*v = s == "CRC32C"
			w.add(kv.key, s)
			return
		}
	}
	w.add(kv.key, rejected)
}

// number answers a minimum-of-both key.
func (g *negotiation) number(kv keyValue, v *uint32, lo, hi, ours uint32, w *textWriter) {
	n, ok := number(kv.value, lo, hi)
	if !ok {
		w.add(kv.key, rejected)
		return
	}
	if g.discovery {
		w.add(kv.key, irrelevant)
		return
	}
	*v = min(n, ours)
	w.add(kv.key, strconv.FormatUint(uint64(*v), 10))
}

func (g *negotiation) small(kv keyValue, v *uint16, lo, hi, ours uint32, w *textWriter) {
	x := uint32(*v)
	g.number(kv, &x, lo, hi, ours, w)
	*v = uint16(x)
}

// boolean answers a key whose result is "and" or "or" of both sides.
func (g *negotiation) boolean(kv keyValue, v *bool, ours, or bool, w *textWriter) {
	if kv.value != "Yes" && kv.value != "No" {
		w.add(kv.key, rejected)
		return
	}
	if g.discovery {
		w.add(kv.key, irrelevant)
		return
	}
	theirs := kv.value == "Yes"
	if or {
		*v = ours || theirs
	} else {
		*v = ours && theirs
	}
	if *v {
		w.add(kv.key, "Yes")
	} else {
		w.add(kv.key, "No")
	}
}

// finish makes the result consistent.
func (g *negotiation) finish() {
	g.n.FirstBurst = min(g.n.FirstBurst, g.n.MaxBurst)
}

// number parses a decimal or 0x constant within [lo, hi].
func number(s string, lo, hi uint32) (uint32, bool) {
	base := 10
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		s, base = s[2:], 16
	}
	v, err := strconv.ParseUint(s, base, 32)
	if err != nil || s[0] == '+' || uint32(v) < lo || uint32(v) > hi {
		return 0, false
	}
	return uint32(v), true
}
