package iscsi_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// portGroups runs a target with two portals here, groups 1 and 2, and one
// elsewhere, group 9.
func portGroups(t *testing.T) (n *node, second string) {
	n = start(t, iscsi.Config{}, nil)
	second, _ = n.listen("127.0.0.1:0")
	n.spec.Portals = []iscsi.Portal{
		{Address: n.addr, Local: n.addr, Group: 1},
		{Address: second, Local: second, Group: 2},
		{Address: "192.0.2.1:3260", Local: "192.0.2.1:3260", Group: 9},
	}
	n.spec.PortGroups = []iscsi.PortGroup{{Tag: 9, State: iscsi.ALUAOffline}, {Tag: 2, State: iscsi.ALUANonOptimized}}
	n.update()
	return n, second
}

func rtpg(n *node, s *initiator.Session, format byte) ([]byte, error) {
	c := &initiator.Command{CDB: cdb(0xa3, 0x0a|format<<5, 0, 0, 0, 0, 0, 0, 2, 0), In: make([]byte, 512)}
	err := s.Do(n.ctx, c)
	return c.In[:c.Received], err
}

// TestReportTargetPortGroups: both header formats, allocation lengths, and the
// bits of INQUIRY.
func TestReportTargetPortGroups(t *testing.T) {
	n, _ := portGroups(t)
	s := n.login(nil)
	const supported = 0xcf
	groups := []byte{
		0x0, supported, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1,
		0x1, supported, 0, 2, 0, 2, 0, 1, 0, 0, 0, 2,
		0xe, supported, 0, 9, 0, 2, 0, 1, 0, 0, 0, 9,
	}
	short := append([]byte{0, 0, 0, 36}, groups...)
	if got, err := rtpg(n, s, 0); err != nil || !bytes.Equal(got, short) {
		t.Errorf("length only header: % x, %v", got, err)
	}
	if got, err := rtpg(n, s, 1); err != nil || !bytes.Equal(got, append([]byte{0, 0, 0, 40, 0x10, 0, 0, 0}, groups...)) {
		t.Errorf("extended header: % x, %v", got, err)
	}
	_, err := rtpg(n, s, 2)
	wantSense(t, err, 5, 0x24, 0)
	c := &initiator.Command{CDB: cdb(0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 10), In: make([]byte, 512)}
	if err := s.Do(n.ctx, c); err != nil || !bytes.Equal(c.In[:c.Received], short[:10]) {
		t.Errorf("10 bytes: % x, %v", c.In[:c.Received], err)
	}
	if b, err := s.Inquiry(n.ctx, 0, -1); err != nil || b[5]>>4&3 != 1 {
		t.Errorf("TPGS of % x, %v", b, err)
	}
	wantSense(t, s.Do(n.ctx, &initiator.Command{CDB: cdb(0xa4, 0x0a)}), 5, 0x20, 0) // SET TARGET PORT GROUPS
}

// TestAccessStates: what each state lets through, and the sense of the rest.
func TestAccessStates(t *testing.T) {
	n, second := portGroups(t)
	s := n.login(nil)
	other := n.login(func(o *initiator.Options) { o.Address = second })
	in := func(b ...byte) *initiator.Command {
		return &initiator.Command{CDB: cdb(b...), In: make([]byte, 255)}
	}
	cmds := map[string]*initiator.Command{
		"INQUIRY": in(0x12, 0, 0, 0, 96), "REPORT LUNS": in(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 255),
		"REQUEST SENSE": in(0x03, 0, 0, 0, 18), "RTPG": in(0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 255),
		"MODE SENSE":      in(0x1a, 0, 0x3f, 0, 255),
		"TEST UNIT READY": {}, "READ": in(0x28, 0, 0, 0, 0, 0, 0, 0, 0), "READ CAPACITY": in(0x25), "RESERVE": {CDB: cdb(0x16)},
		"WRITE": {CDB: cdb(0x2a, 0, 0, 0, 0, 0, 0, 0, 1), Out: make([]byte, 512)},
	}
	always := map[string]bool{"INQUIRY": true, "REPORT LUNS": true, "REQUEST SENSE": true, "RTPG": true}
	for _, tc := range []struct {
		state iscsi.ALUAState
		ascq  byte
		open  map[string]bool // nil: everything
	}{
		{iscsi.ALUANonOptimized, 0, nil},
		{iscsi.ALUAStandby, 0x0b, map[string]bool{"MODE SENSE": true}},
		{iscsi.ALUAUnavailable, 0x0c, map[string]bool{}},
		{iscsi.ALUAOffline, 0x12, map[string]bool{}},
		{iscsi.ALUATransitioning, 0x0a, map[string]bool{}},
		{iscsi.ALUAOptimized, 0, nil},
	} {
		t.Run(tc.state.String(), func(t *testing.T) {
			if err := n.srv.SetGroupState(targetName, 1, tc.state); err != nil {
				t.Fatal(err)
			}
			for _, x := range []*initiator.Session{s, other} { // every nexus is told
				wantSense(t, x.TestUnitReady(n.ctx, 0), 6, 0x2a, 6)
			}
			if b, err := rtpg(n, other, 0); err != nil || b[4] != byte(tc.state) {
				t.Errorf("reported % x, %v", b, err)
			}
			for name, c := range cmds {
				t.Run(name, func(t *testing.T) {
					err := s.Do(n.ctx, c)
					if tc.open == nil || always[name] || tc.open[name] {
						if err != nil {
							t.Error(err)
						}
						return
					}
					wantSense(t, err, 2, 4, tc.ascq)
				})
			}
			if c := cmds["REQUEST SENSE"]; tc.open != nil && (c.In[2] != 2 || c.In[12] != 4 || c.In[13] != tc.ascq) {
				t.Errorf("REQUEST SENSE says % x", c.In[:18])
			}
			if err := s.Do(n.ctx, &initiator.Command{CDB: cdb(0x17)}); tc.open == nil && err != nil { // RELEASE
				t.Error(err)
			}
			if err := other.WriteAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
				t.Errorf("through the other port group: %v", err)
			}
		})
	}
	fresh := n.ready(nil) // a session begins in the state of its port group
	if err := n.srv.SetGroupState(targetName, 1, iscsi.ALUAStandby); err != nil {
		t.Fatal(err)
	}
	again := n.ready(nil)
	for _, x := range []*initiator.Session{fresh, again} {
		if err := x.Ready(n.ctx, 0); fmt.Sprint(err) != "scsi: opcode 0x00: CHECK CONDITION 2/04/0b" {
			t.Error(err)
		}
	}
	n.spec.PortGroups = nil
	n.update()
	wantSense(t, fresh.TestUnitReady(n.ctx, 0), 6, 0x2a, 6)
	if err := fresh.TestUnitReady(n.ctx, 0); err != nil {
		t.Error(err)
	}
	for _, err := range []error{
		n.srv.SetGroupState(targetName, 3, iscsi.ALUAOptimized), n.srv.SetGroupState(targetName, 1, 4),
		n.srv.SetGroupState("iqn.2026-01.no:such", 1, 0),
	} {
		if err == nil {
			t.Error("accepted")
		}
	}
	if err := n.srv.SetGroupState("iqn.2026-01.no:such", 1, 0); !errors.Is(err, iscsi.ErrNoTarget) {
		t.Error(err)
	}
}
