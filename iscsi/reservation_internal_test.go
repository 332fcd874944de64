package iscsi

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var updateReservations = flag.Bool("update", false, "write the golden files of reservations anew: only after every line was judged by the standard")

// TestConflictMatrix: each type of reservation, against each role, for each class
// of command; the table is that of SPC-4.
func TestConflictMatrix(t *testing.T) {
	const none, read, write = 0, 1, 2
	access := []int{0, accessRead, accessWrite}
	type row struct {
		kind byte
		role string
		ok   [3]bool // none, read, write
	}
	all, reads, nothing := [3]bool{true, true, true}, [3]bool{true, true, false}, [3]bool{true, false, false}
	a, b, c := itNexus{"iqn.2026-01.x:a", [6]byte{1}, 1}, itNexus{"iqn.2026-01.x:b", [6]byte{1}, 1}, itNexus{"iqn.2026-01.x:c", [6]byte{1}, 1}
	elsewhere, other := a, a // the holder's name at another port, and another port of the holder's name
	elsewhere.port, other.isid = 2, [6]byte{2}
	who := map[string]itNexus{"holder": a, "registered": b, "stranger": c, "holder at another portal group": elsewhere, "holder with another ISID": other}
	rows := []row{{0, "holder", all}, {0, "registered", all}, {0, "stranger", all}}
	for kind, granted := range map[byte][2][3]bool{ // to a registered nexus, to a stranger
		writeExclusive:    {reads, reads},
		exclusiveAccess:   {nothing, nothing},
		writeExclusiveRO:  {all, reads},
		exclusiveAccessRO: {all, nothing},
		writeExclusiveAR:  {all, reads},
		exclusiveAccessAR: {all, nothing},
	} {
		rows = append(rows, row{kind, "holder", all}, row{kind, "registered", granted[0]}, row{kind, "stranger", granted[1]},
			row{kind, "holder at another portal group", granted[1]}, row{kind, "holder with another ISID", granted[1]})
	}
	for _, x := range rows {
		r := &registry{index: map[itNexus]int{}}
		r.set(a, 1)
		r.set(b, 2)
		if x.kind != 0 {
			r.reserve(a, x.kind)
		}
		for class := none; class <= write; class++ {
			if got := !r.refuses(who[x.role], access[class]); got != x.ok[class] {
				t.Errorf("type %d, %s, class %d: allowed %t", x.kind, x.role, class, got)
			}
		}
	}
}

// TestCommandClasses: every command has a class of its own choice, which agrees
// with what else is known of it, and strangers that are added are taken for writes.
func TestCommandClasses(t *testing.T) {
	for _, c := range newCommandTable().set {
		_, exact := accessByCommand[[2]int{int(c.op), c.sa}]
		_, any := accessByCommand[[2]int{int(c.op), noSA}]
		if !exact && !any {
			t.Errorf("%s (%02x/%d) has no class in conflict.go", c.name, c.op, c.sa)
		}
		if c.flags&writes != 0 && c.flags&accessWrite == 0 {
			t.Errorf("%s changes the medium, and write exclusive lets it pass", c.name)
		}
		if c.flags&bulk != 0 && c.flags&(accessRead|accessWrite) == 0 {
			t.Errorf("%s reads the medium, and exclusive access lets it pass", c.name)
		}
		if (c.op == opPersistentOut || c.op == opReserve6 || c.op == opReserve10 || c.op == opRelease6 || c.op == opRelease10) != (c.flags&changesReservation != 0) {
			t.Errorf("%s: changesReservation", c.name)
		}
	}
	if accessOf(&command{op: 0xc1, sa: noSA}) != accessWrite {
		t.Error("an unknown command is not taken for a write")
	}
	table := newCommandTable()
	for _, tc := range []struct {
		name string
		cdb  [16]byte
		want bool // counts as a write
	}{
		{"START", [16]byte{0x1b, 0, 0, 0, 1}, false},
		{"STOP", [16]byte{0x1b}, true},
		{"START into a power condition", [16]byte{0x1b, 0, 0, 0, 0x21}, true},
		{"ALLOW removal", [16]byte{0x1e}, false},
		{"PREVENT removal", [16]byte{0x1e, 0, 0, 0, 1}, true},
		{"PREVENT of the changer", [16]byte{0x1e, 0, 0, 0, 2}, true},
	} {
		k := &task{cdb: tc.cdb, cmd: table.lookup(nil, &tc.cdb)}
		if got := k.reservationAccess()&accessWrite != 0; got != tc.want {
			t.Errorf("%s: %t", tc.name, got)
		}
	}
}

// Transcripts: testdata/reservations.txt holds commands and what they come to.
//
//	N ACTION [key=K] [new=K] [type=T] [scope=S] [aptpl] [allports] [unreg]
//	         [port=P] [ids=N,...]          => result | registry | unit attentions
//
// N is a nexus: a letter is an initiator port at portal group 1, a letter and a
// number one at that group; a capital with an apostrophe is another ISID of the
// same name; a lower case letter names the initiator without ISID. The target has
// the groups 1 and 2.

func nexusOf(s string) itNexus {
	n := itNexus{initiator: "iqn.2026-01.test:" + strings.ToLower(s[:1]), isid: [6]byte{0x80, s[0] &^ 0x20}, port: 1}
	for _, c := range s[1:] {
		if c == '\'' {
			n.isid[2]++
		} else {
			n.port = uint16(c - '0')
		}
	}
	return n
}

func nameOf(n itNexus) string {
	s := strings.ToUpper(n.initiator[len(n.initiator)-1:]) + strings.Repeat("'", int(n.isid[2]))
	if n.port != 1 {
		s += strconv.Itoa(int(n.port))
	}
	return s
}

var prActions = map[string]byte{"register": prRegister, "reserve": prReserve, "release": prRelease, "clear": prClear,
	"preempt": prPreempt, "abort": prPreemptAbort, "ignore": prRegisterIgnore, "move": prRegisterMove}

func parseTranscript(line string) (by itNexus, q prOut, durable bool, err error) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return by, q, false, fmt.Errorf("%q", line)
	}
	action, ok := prActions[f[1]]
	if !ok {
		return by, q, false, fmt.Errorf("action %q", f[1])
	}
	by, q.action, durable = nexusOf(f[0]), action, true
	for _, a := range f[2:] {
		k, v, _ := strings.Cut(a, "=")
		n, _ := strconv.Atoi(v)
		switch k {
		case "key":
			q.key = uint64(n)
		case "new":
			q.newKey = uint64(n)
		case "type":
			q.kind = byte(n)
		case "scope":
			q.scope = byte(n)
		case "port":
			q.port = uint16(n)
		case "aptpl":
			q.aptpl = true
		case "allports":
			q.allPorts = true
		case "unreg":
			q.unregister = true
		case "volatile":
			durable = false
		case "ids":
			q.specified = action == prRegister
			for _, id := range strings.Split(v, ",") {
				x := nexusOf(strings.ToUpper(id))
				q.ids = append(q.ids, transportID{x.initiator, x.isid, id == strings.ToLower(id)})
			}
		default:
			return by, q, false, fmt.Errorf("%q", a)
		}
	}
	return by, q, durable, nil
}

func (r *registry) String() string {
	var b strings.Builder
	for i, g := range r.list {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s:%d", nameOf(g.itNexus), g.key)
	}
	if len(r.list) == 0 {
		b.WriteString("nobody")
	}
	if r.kind != 0 {
		fmt.Fprintf(&b, ", type %d", r.kind)
		if !allRegistrants(r.kind) {
			fmt.Fprintf(&b, " of %s", nameOf(r.holder))
		}
	}
	if r.aptpl {
		b.WriteString(", aptpl")
	}
	fmt.Fprintf(&b, ", generation %d", r.generation)
	return b.String()
}

func (x prResult) String() string {
	switch {
	case x.status == statusCheckCondition:
		return fmt.Sprintf("%x/%02x/%02x", x.sense.key, x.sense.asc, x.sense.ascq)
	case x.status == statusReservationConflict:
		return "conflict"
	case x.next == nil:
		return "nothing"
	}
	return "good"
}

// known are the initiator ports with sessions: A with two, B with one.
func known(initiator string) [][6]byte {
	switch initiator {
	case nexusOf("A").initiator:
		return [][6]byte{nexusOf("A").isid, nexusOf("A'").isid}
	case nexusOf("B").initiator:
		return [][6]byte{nexusOf("B").isid}
	}
	return nil
}

// checkRegistry tells which rule a registry breaks.
func checkRegistry(r *registry) error {
	if len(r.list) > maxRegistrations || len(r.index) != len(r.list) {
		return fmt.Errorf("%d registrations, %d in the index", len(r.list), len(r.index))
	}
	for i, g := range r.list {
		if r.index[g.itNexus] != i || g.key == 0 {
			return fmt.Errorf("registration %d: %+v", i, g)
		}
	}
	switch {
	case r.kind == 0 && r.holder != itNexus{}, r.kind != 0 && !validReservation(r.kind), r.kind != 0 && len(r.list) == 0,
		allRegistrants(r.kind) && r.holder != itNexus{}, r.kind != 0 && !allRegistrants(r.kind) && r.find(r.holder) == 0:
		return fmt.Errorf("type %d, holder %+v", r.kind, r.holder)
	}
	b := r.encode()
	if len(b) > MaxReservationBytes {
		return fmt.Errorf("%d bytes to store", len(b))
	}
	again, err := decodeRegistry(b)
	if err != nil {
		return err
	}
	again.generation = r.generation
	if len(r.list) == 0 {
		again.aptpl = r.aptpl // nothing to keep
	}
	if again.String() != r.String() {
		return fmt.Errorf("stored %s comes back as %s", r, again)
	}
	return nil
}

func TestReservationTranscripts(t *testing.T) {
	path := filepath.Join("testdata", "reservations.txt")
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r := &registry{index: map[itNexus]int{}}
	title, commands := "", 0
	in := bufio.NewScanner(bytes.NewReader(kept))
	for in.Scan() {
		line := in.Text()
		cmd, want, _ := strings.Cut(line, " => ")
		if strings.HasPrefix(line, "#") || line == "" {
			if strings.HasPrefix(line, "# ") {
				title, r = line[2:], &registry{index: map[itNexus]int{}}
			}
			fmt.Fprintln(&out, line)
			continue
		}
		by, q, durable, err := parseTranscript(cmd)
		if err != nil {
			t.Fatal(err)
		}
		before := r.String()
		x := r.decide(by, &q, prPlace{ports: []uint16{1, 2}, known: known, durable: durable})
		if r.String() != before {
			t.Errorf("%s: %s: the registry was changed in place", title, cmd)
		}
		if x.next != nil {
			r = x.next
		}
		if err := checkRegistry(r); err != nil {
			t.Errorf("%s: %s: %v", title, cmd, err)
		}
		got := x.String() + " | " + r.String()
		var tell []string
		for _, n := range x.tell {
			tell = append(tell, fmt.Sprintf("%s %02x/%02x", nameOf(n.itNexus), n.ua.asc, n.ua.ascq))
		}
		slices.Sort(tell)
		if len(tell) > 0 {
			got += " | " + strings.Join(tell, ", ")
		}
		if got != want && !*updateReservations {
			t.Errorf("%s: %s\ngot  %s\nwant %s", title, cmd, got, want)
		}
		fmt.Fprintf(&out, "%s => %s\n", cmd, got)
		commands++
	}
	if *updateReservations {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if commands < 80 {
		t.Errorf("only %d commands", commands)
	}
}

// TestRegistrationsBounded: the 257th registration is refused, whoever brings it.
func TestRegistrationsBounded(t *testing.T) {
	r := &registry{index: map[itNexus]int{}}
	long := strings.Repeat("x", maxName-len("iqn.2026-01.y:"))
	name := func(i int) itNexus {
		return itNexus{fmt.Sprintf("iqn.2026-01.y:%s%04d", long[4:], i), [6]byte{0x80, byte(i)}, 1}
	}
	at := prPlace{ports: []uint16{1, 2}, known: known, durable: true}
	for i := range maxRegistrations {
		x := r.decide(name(i), &prOut{action: prRegister, newKey: 7}, at)
		if x.next == nil {
			t.Fatalf("registration %d: %v", i, x)
		}
		r = x.next
	}
	r = r.decide(name(0), &prOut{action: prReserve, key: 7, kind: writeExclusive}, at).next
	if err := checkRegistry(r); err != nil {
		t.Fatal(err)
	}
	b := nexusOf("B")
	for what, q := range map[string]*prOut{
		"REGISTER":  {action: prRegister, newKey: 1},
		"IGNORE":    {action: prRegisterIgnore, newKey: 1},
		"SPEC_I_PT": {action: prRegister, newKey: 1, specified: true, ids: []transportID{{initiator: b.initiator, any: true}}},
	} {
		if x := r.decide(nexusOf("C"), q, at); x.sense != senseNoRegistrations || x.next != nil {
			t.Errorf("%s: %v", what, x)
		}
	}
	move := &prOut{action: prRegisterMove, key: 7, newKey: 1, port: 1, ids: []transportID{{initiator: b.initiator, isid: b.isid}}}
	if x := r.decide(name(0), move, at); x.sense != senseNoRegistrations {
		t.Errorf("MOVE: %v", x)
	}
	move.unregister = true
	if x := r.decide(name(0), move, at); x.next == nil || len(x.next.list) != maxRegistrations {
		t.Errorf("MOVE with UNREG: %v", x)
	}
	many := &prOut{action: prRegister, newKey: 1, specified: true, allPorts: true}
	for i := range maxRegistrations {
		many.ids = append(many.ids, transportID{initiator: name(i).initiator, isid: [6]byte{1}})
	}
	if x := (&registry{index: map[itNexus]int{}}).decide(b, many, at); x.sense != senseNoRegistrations {
		t.Errorf("many: %v", x)
	}
}

// goldenRegistry has every field that is stored.
func goldenRegistry() *registry {
	r := &registry{aptpl: true, index: map[itNexus]int{}}
	r.set(nexusOf("A"), 1)
	r.set(nexusOf("B2"), 0x0102030405060708)
	r.set(nexusOf("C'"), 1<<64-1)
	r.reserve(nexusOf("B2"), exclusiveAccessRO)
	return r
}

func TestStoredReservationGolden(t *testing.T) {
	path := filepath.Join("testdata", "reservation.bin")
	b := goldenRegistry().encode()
	if *updateReservations {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, kept) {
		t.Fatal("what is stored now is not what earlier versions stored")
	}
	r, err := decodeRegistry(kept)
	if err != nil || !reflect.DeepEqual(r, goldenRegistry()) {
		t.Fatalf("%v, %v", r, err)
	}
	for i := range kept { // a changed byte, and a cut, are found
		kept[i] ^= 1
		if r, err := decodeRegistry(kept); err == nil {
			t.Fatalf("byte %d changed passes as %v", i, r)
		}
		kept[i] ^= 1
		if i > 0 {
			if r, err := decodeRegistry(kept[:i]); err == nil {
				t.Fatalf("%d bytes pass as %v", i, r)
			}
		}
	}
}

// resealed changes a stored state and gives it a right checksum.
func resealed(change func(b []byte) []byte) []byte {
	b := goldenRegistry().encode()
	return sealStored(change(b[:len(b)-storedCRC]))
}

func sealStored(b []byte) []byte {
	return be.AppendUint32(slices.Clip(b), crc32.Checksum(b, castagnoli))
}

func TestStoredReservationRefused(t *testing.T) {
	at := func(i int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[i:], v); return b }
	}
	for name, b := range map[string][]byte{
		"version 0":           resealed(at(8, 0, 0)),
		"unknown flag":        resealed(at(10, 0, 2)),
		"unknown type":        resealed(at(12, 2)),
		"reserved byte":       resealed(at(13, 1)),
		"holder beyond":       resealed(at(14, 0, 3)),
		"type without holder": resealed(at(14, 0xff, 0xff)),
		"holder without type": resealed(at(12, 0)),
		"all and a holder":    resealed(at(12, writeExclusiveAR)),
		"nobody":              resealed(func(b []byte) []byte { copy(b[12:], []byte{0, 0, 0xff, 0xff, 0, 0}); return b[:storedHeader] }),
		"count above":         resealed(at(16, 0, 4)),
		"count below":         resealed(at(16, 0, 2)),
		"key 0":               resealed(at(storedHeader, make([]byte, 8)...)),
		"name is none":        resealed(at(storedHeader+storedEntry, 'I')),
		"name too long":       resealed(at(storedHeader+storedEntry-1, 255)),
		"trailing bytes":      resealed(func(b []byte) []byte { return append(b, 0) }),
		"twice": resealed(func(b []byte) []byte {
			one := b[storedHeader : storedHeader+storedEntry+len(nexusOf("A").initiator)]
			return slices.Concat(b[:storedHeader], one, one, one)
		}),
	} {
		if r, err := decodeRegistry(b); err == nil {
			t.Errorf("%s: %v", name, r)
		}
	}
	if _, err := decodeRegistry(resealed(at(8, 0, storedVersion+1))); err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("newer version: %v", err)
	}
}

func TestTransportID(t *testing.T) {
	for _, name := range []string{"iqn.2026-01.a:b", "eui.0011223344556677", "iqn.2026-01.y:" + strings.Repeat("x", maxName-len("iqn.2026-01.y:"))} {
		n := itNexus{name, [6]byte{1, 2, 3, 4, 5, 0xfe}, 7}
		b := putTransportID(nil, n)
		id, used, err := parseTransportID(append(b, 1, 2, 3))
		if err != nil || used != len(b) || id != (transportID{n.initiator, n.isid, false}) {
			t.Errorf("%s: %+v, %d of %d, %v", name, id, used, len(b), err)
		}
	}
	make := func(head byte, text string, size int) []byte {
		b := append([]byte{head, 0, 0, 0}, text...)
		for len(b) < 4+size {
			b = append(b, 0)
		}
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
		return b
	}
	const name = "iqn.2026-01.a:b"
	if id, _, err := parseTransportID(make(0x05, "IQN.2026-01.a:b", 20)); err != nil || id != (transportID{initiator: name, any: true}) {
		t.Errorf("%+v, %v", id, err)
	}
	if id, _, err := parseTransportID(make(0x45, name+",i,0x00023D0000FF", 36)); err != nil || id.isid != [6]byte{0, 2, 0x3d, 0, 0, 0xff} {
		t.Errorf("%+v, %v", id, err)
	}
	for what, b := range map[string][]byte{
		"nothing":           nil,
		"header alone":      {0x05, 0, 0, 20},
		"another protocol":  make(0x06, name, 20),
		"format 10b":        make(0x85, name, 20),
		"short":             make(0x05, name[:14], 16),
		"odd length":        make(0x05, name, 21),
		"no end":            make(0x05, "iqn.2026-01.a:bcdefg", 20),
		"after the end":     make(0x05, name+"\x00\x00x", 20),
		"bad name":          make(0x05, "hello", 20),
		"no name":           make(0x45, ",i,0x00023d000001", 20),
		"format 00b, ISID":  make(0x05, name+",i,0x00023d000001", 36),
		"format 01b, none":  make(0x45, name, 20),
		"short ISID":        make(0x45, name+",i,0x00023d0000", 36),
		"ISID is no number": make(0x45, name+",i,0x00023d00000g", 36),
		"too long":          make(0x05, "iqn.2026-01.y:"+strings.Repeat("x", 400), 500),
	} {
		if id, _, err := parseTransportID(b); err == nil {
			t.Errorf("%s: %+v", what, id)
		}
	}
}

// FuzzPersistentOut: parameter lists of every kind, on registries that grew from
// them: nothing breaks, and the registry keeps its rules.
func FuzzPersistentOut(f *testing.F) {
	list := func(key, newKey byte, flags byte, ids ...byte) []byte {
		b := make([]byte, prListBytes)
		b[7], b[15], b[20] = key, newKey, flags
		if len(ids) > 0 {
			b = append(be.AppendUint32(b, uint32(len(ids))), ids...)
		}
		return b
	}
	cdb := func(action, kind byte) []byte { return []byte{opPersistentOut, action, kind} }
	idB := putTransportID(nil, nexusOf("B"))
	f.Add(cdb(prRegister, 0), list(0, 1, 1), cdb(prReserve, exclusiveAccess), list(1, 0, 0), byte(0))
	f.Add(cdb(prRegisterIgnore, 0), list(0, 1, 4), cdb(prReserve, writeExclusiveAR), list(1, 0, 0), byte(1))
	f.Add(cdb(prRegister, 0), list(0, 1, 8, idB...), cdb(prPreemptAbort, writeExclusiveRO), list(1, 1, 0), byte(2))
	move := append(list(1, 2, 0)[:20], 0, 0, 0, byte(len(idB)))
	move[17], move[19] = 3, 1
	f.Add(cdb(prReserve, writeExclusive), list(1, 0, 0), cdb(prRegisterMove, 0), append(move, idB...), byte(0))
	f.Add(cdb(prClear, 0), list(1, 0, 0), cdb(prRelease, writeExclusive), list(1, 0, 0), byte(7))
	f.Fuzz(func(t *testing.T, c1, l1, c2, l2 []byte, who byte) {
		at := prPlace{ports: []uint16{1, 2}, known: known, durable: who&0x80 == 0}
		a, b := nexusOf("A"), nexusOf("B")
		r := &registry{index: map[itNexus]int{}}
		r.set(a, 1)
		r.set(b, 2)
		if kind := who >> 2 & 0x0f; validReservation(kind) {
			r.reserve(b, kind)
		}
		for i, cmd := range [][2][]byte{{c1, l1}, {c2, l2}, {c1, l1}} {
			var cdb [16]byte
			copy(cdb[:], cmd[0])
			cdb[1] &= 0x07
			q, bad := parsePROut(&cdb, cmd[1])
			if bad != (sense{}) {
				if bad.key != 5 {
					t.Fatalf("refused with %+v", bad)
				}
				continue
			}
			if len(q.ids) > maxRegistrations {
				t.Fatalf("%d TransportIDs", len(q.ids))
			}
			by := []itNexus{a, b, nexusOf("C"), nexusOf("A2")}[(int(who)+i)&3]
			before := r.String()
			x := r.decide(by, &q, at)
			if r.String() != before {
				t.Fatal("changed in place")
			}
			if x.next != nil {
				if x.status != statusGood {
					t.Fatalf("refused and changed: %+v", x)
				}
				r = x.next
			}
			if err := checkRegistry(r); err != nil {
				t.Fatal(err)
			}
			for _, n := range x.lost {
				if r.find(n) != 0 {
					t.Fatalf("%s is lost and registered", nameOf(n))
				}
			}
		}
	})
}

// FuzzStoredReservation: bytes that decode are those that are stored again.
func FuzzStoredReservation(f *testing.F) {
	b := goldenRegistry().encode()
	f.Add(b, false)
	f.Add(b[:len(b)-storedCRC], true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			b = sealStored(b)
		}
		r, err := decodeRegistry(b)
		if err != nil {
			return
		}
		if err := checkRegistry(r); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.encode(), b) {
			t.Fatal("other bytes for the same state")
		}
	})
}
