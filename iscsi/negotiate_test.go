package iscsi

import (
	"strings"
	"testing"
)

// TestNegotiation: each operational key, its answer and the resulting value.
func TestNegotiation(t *testing.T) {
	value := func(n Negotiated, key string) any {
		switch key {
		case "HeaderDigest":
			return n.HeaderDigest
		case "DataDigest":
			return n.DataDigest
		case "MaxRecvDataSegmentLength":
			return n.MaxRecvInitiator
		case "MaxBurstLength":
			return n.MaxBurst
		case "FirstBurstLength":
			return n.FirstBurst
		case "InitialR2T":
			return n.InitialR2T
		case "ImmediateData":
			return n.ImmediateData
		case "DefaultTime2Wait":
			return n.Time2Wait
		case "DefaultTime2Retain":
			return n.Time2Retain
		}
		return nil
	}
	for _, tc := range []struct {
		key, offer, answer string
		want               any
	}{
		{"HeaderDigest", "None", "None", false},
		{"HeaderDigest", "CRC32C", "CRC32C", true},
		{"HeaderDigest", "CRC32C,None", "CRC32C", true},
		{"HeaderDigest", "None,CRC32C", "None", false},
		{"HeaderDigest", "X-sha,CRC32C", "CRC32C", true},
		{"HeaderDigest", "X-sha", "Reject", false},
		{"DataDigest", "CRC32C,None", "CRC32C", true},
		{"MaxRecvDataSegmentLength", "512", "", uint32(512)},
		{"MaxRecvDataSegmentLength", "0x1000", "", uint32(4096)},
		{"MaxRecvDataSegmentLength", "16777215", "", uint32(16777215)},
		{"MaxRecvDataSegmentLength", "511", "Reject", uint32(8192)},
		{"MaxRecvDataSegmentLength", "16777216", "Reject", uint32(8192)},
		{"MaxRecvDataSegmentLength", "abc", "Reject", uint32(8192)},
		{"MaxRecvDataSegmentLength", "-1", "Reject", uint32(8192)},
		{"MaxRecvDataSegmentLength", "", "Reject", uint32(8192)},
		{"MaxBurstLength", "16776192", "1048576", uint32(1048576)},
		{"MaxBurstLength", "4096", "4096", uint32(4096)},
		{"MaxBurstLength", "1", "Reject", uint32(262144)},
		{"FirstBurstLength", "512", "512", uint32(512)},
		{"FirstBurstLength", "16777215", "262144", uint32(262144)},
		{"InitialR2T", "Yes", "Yes", true},
		{"InitialR2T", "No", "No", false},
		{"InitialR2T", "maybe", "Reject", true},
		{"ImmediateData", "Yes", "Yes", true},
		{"ImmediateData", "No", "No", false},
		{"DefaultTime2Wait", "0", "0", uint16(0)},
		{"DefaultTime2Wait", "3600", "3600", uint16(3600)},
		{"DefaultTime2Wait", "3601", "Reject", uint16(2)},
		{"DefaultTime2Retain", "20", "0", uint16(0)},
		{"ErrorRecoveryLevel", "2", "0", nil},
		{"ErrorRecoveryLevel", "3", "Reject", nil},
		{"MaxConnections", "8", "1", nil},
		{"MaxOutstandingR2T", "16", "1", nil},
		{"MaxOutstandingR2T", "0", "Reject", nil},
		{"DataPDUInOrder", "No", "Yes", nil},
		{"DataSequenceInOrder", "No", "Yes", nil},
		{"iSCSIProtocolLevel", "0", "0", nil},
		{"iSCSIProtocolLevel", "2", "1", nil},
		{"iSCSIProtocolLevel", "32", "Reject", nil},
		{"MaxBurstLength", "NotUnderstood", "", uint32(262144)},
		{"X-com.example.foo", "Reject", "", nil},
		{"IFMarker", "Yes", "No", nil},
		{"OFMarker", "No", "No", nil},
		{"TaskReporting", "FastAbort", "RFC3720", nil},
		{"X-com.example.foo", "1", "NotUnderstood", nil},
		{"Y", "", "NotUnderstood", nil},
	} {
		t.Run(tc.key+"="+tc.offer, func(t *testing.T) {
			g, w := negotiation{n: defaultNegotiated()}, &textWriter{}
			g.answer(keyValue{tc.key, tc.offer}, w)
			_, got, _ := strings.Cut(strings.TrimSuffix(string(w.b), "\x00"), "=")
			if got != tc.answer {
				t.Errorf("answer %q, want %q", got, tc.answer)
			}
			if v := value(g.n, tc.key); v != tc.want {
				t.Errorf("value %v, want %v", v, tc.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for s, ok := range map[string]bool{
		"iqn.2026-01.com.example:disk.1": true, "iqn.2026-12.com.example": true, "IQN.2026-01.COM.Example:A": true,
		"iqn.2026-01.com.example:größe": true, "eui.02004567A425678D": true, "naa.52004567BA64678D": true,
		"naa.62004567BA64678D0123456789ABCDEF": true,
		"":                                     false, "iqn.": false, "iqn.2026-13.com.example": false, "iqn.2026-1.com": false,
		"iqn.2026-01.": false, "iqn.2026-01.:x": false, "iqn.2026-01.a b": false, "iqn.2026-01.a\x00b": false,
		"iqn.2026-01.a_b": false, "iqn.2026-01.a,b": false, "eui.123": false, "naa.xyz4567BA64678D": false,
		"disk": false, "iqn.2026-01.com.example:" + strings.Repeat("x", 300): false, "iqn.2026-01.com:\xff": false,
	} {
		if err := CheckName(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestLUNEncoding(t *testing.T) {
	for _, n := range []uint16{0, 1, 255, 256, 300, 16383} {
		var b [8]byte
		putLUN(b[:], n)
		if got, ok := lunOf(b[:]); !ok || got != n {
			t.Errorf("LUN %d came back as %d, %v", n, got, ok)
		}
	}
	for _, b := range [][8]byte{{0x80}, {0xc0}, {1, 0}, {0, 0, 1}, {0, 0, 0, 0, 0, 0, 0, 1}} {
		if _, ok := lunOf(b[:]); ok {
			t.Errorf("% x is accepted", b)
		}
	}
}

func TestSerial(t *testing.T) {
	if !serialLess(0xffffffff, 0) || serialLess(0, 0xffffffff) || serialLess(5, 5) || !serialLess(0x7fffffff, 0x80000000) {
		t.Error("serial comparison does not wrap")
	}
}
