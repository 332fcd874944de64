package iscsi

import "testing"

// TestTSIH: handles do not leak, are not zero, and are not given out twice at
// the same time, over more logins than there are handles.
func TestTSIH(t *testing.T) {
	s := NewServer(Config{})
	spec := TargetSpec{Name: "iqn.2026-01.test:t", Groups: []Group{{Name: "all", Any: true}}}
	if err := s.AddTarget(spec); err != nil {
		t.Fatal(err)
	}
	login := func(isid byte) *session {
		c := &conn{srv: s, down: make(chan struct{}), tasks: map[uint32]*task{}, name: "iqn.2026-01.test:x", local: "127.0.0.1:3260"}
		ss, err := s.newSession(&login{c: c, target: s.targets[spec.Name], isid: [6]byte{isid}, group: 1})
		if err != nil {
			t.Fatal(err)
		}
		return ss
	}
	kept := map[uint16]*session{}
	for i := range byte(10) {
		ss := login(i)
		kept[ss.tsih] = ss
	}
	last, wraps := uint16(0), 0
	for range 70000 {
		ss := login(100)
		if ss.tsih == 0 || ss.tsih == discoveryTSIH || kept[ss.tsih] != nil || s.sessions[ss.tsih] != ss {
			t.Fatalf("TSIH %d", ss.tsih)
		}
		if ss.tsih < last {
			wraps++
		}
		last = ss.tsih
		s.endSession(ss)
	}
	if wraps != 1 || len(s.sessions) != len(kept) {
		t.Errorf("%d wraps, %d sessions", wraps, len(s.sessions))
	}
	for _, ss := range kept {
		s.endSession(ss)
	}
	if len(s.sessions) != 0 {
		t.Errorf("%d sessions are left", len(s.sessions))
	}
	if l := (Limits{Sessions: 1 << 20}).withDefaults(); l.Sessions != maxTSIH-1 {
		t.Errorf("%d sessions for %d handles", l.Sessions, maxTSIH-1)
	}
}
