package forward

import (
	"net"
	"testing"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/iscsi"
)

// TestRefusedNexuses: sessions that the owner refuses, again and again while it does not show
// a target, do not fill a connection.
func TestRefusedNexuses(t *testing.T) {
	srv := iscsi.NewServer(iscsi.Config{})
	s := NewServer(ServerOptions{Cluster: "c", Node: "b", Target: srv, Clock: clock.Real{}})
	near, far := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(far, "") }()
	conn := newConn(hold(near))
	ask := func(typ uint16, encode func(*wire.Encoder), want uint16) []byte {
		t.Helper()
		var e wire.Encoder
		encode(&e)
		if err := conn.Send(typ, 0, e.B); err != nil {
			t.Fatal(err)
		}
		head, meta, err := receive(conn)
		if err != nil || head.Type != want {
			t.Fatalf("message %d: %v", head.Type, err)
		}
		return meta
	}
	ask(typeHello, (&hello{cluster: "c", node: "a", peer: "b"}).encode, typeWelcome)
	for i := range uint64(2*maxNexuses + 10) {
		o := opening{nexus: i + 1, id: iscsi.NexusID{Target: "iqn.2026-01.org.example:none", Initiator: "iqn.2026-01.org.example:host", Group: 1}}
		var m mark
		if err := m.decode(ask(typeOpen, o.encode, typeOpened)); err != nil || m.nexus != i+1 || m.code != codeRefused {
			t.Fatalf("opened: %+v, %v", m, err)
		}
	}
	if err := near.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	s.Close()
}
