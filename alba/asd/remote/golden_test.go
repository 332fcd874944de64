package remote

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/wire"
)

// TestGolden compares the meta of every message of version 1 with what it was
// when the version was made. A difference means that old and new nodes do not
// understand each other: give the protocol a new version instead of a new file.
func TestGolden(t *testing.T) {
	tr := transcript{mode: modeTLS, client: [32]byte{1}, server: [32]byte{2}, binding: bytes.Repeat([]byte{3}, 32)}
	secret := bytes.Repeat([]byte{4}, KeyBytes)
	messages := []struct {
		name   string
		encode func(e *wire.Encoder)
	}{
		{"proof of the client", func(e *wire.Encoder) { e.Bytes(tr.mac(secret, clientLabel, "")) }},
		{"proof of the server", func(e *wire.Encoder) { e.Bytes(tr.mac(secret, serverLabel, "id")) }},
		{"get", (&getRequest{osd.Low, 4096, [][]byte{[]byte("a"), []byte("bc")}}).encode},
		{"get reply", func(e *wire.Encoder) {
			encodeValues(e, []osd.Value{{Data: []byte("xyz"), CRC: 0x01020304}, {}, {Data: []byte{}}})
		}},
		{"read", (&readRequest{osd.High, []byte("key"), 1 << 30, 65536}).encode},
		{"read reply", func(e *wire.Encoder) { encodeSum(e, true, []byte("xyz")) }},
		{"apply", func(e *wire.Encoder) {
			encodeApply(e, []osd.Assert{{Key: []byte("a"), Value: []byte("v")}, {Key: []byte("b")}, {Key: []byte("c"), Value: []byte{}}},
				[]osd.Update{osd.Set([]byte("d"), []byte("value")), osd.Delete([]byte("e")), osd.Set([]byte("f"), nil)}, osd.Low)
		}},
		{"list", (&listRequest{osd.High, []byte("p"), []byte("pa"), 100}).encode},
		{"list reply", func(e *wire.Encoder) { encodeEntries(e, []osd.Entry{{Key: []byte("pb"), Size: 1 << 20, CRC: 9}}) }},
		{"validate", (&validateRequest{[]byte("p"), nil, 100, 1 << 30}).encode},
		{"validate reply", func(e *wire.Encoder) {
			encodeValidation(e, &osd.Validation{Keys: 3, Bytes: 9, Bad: [][]byte{[]byte("a")}, Next: []byte("c")})
		}},
		{"info reply", func(e *wire.Encoder) {
			encodeInfo(e, &osd.Info{ID: "id", Run: "run", Applies: 1, Total: 2, Used: 3, Limit: 4, Free: 5, Full: true, Version: "v"})
		}},
		{"stats reply", func(e *wire.Encoder) {
			encodeStats(e, &osd.Stats{Reads: 1, Applies: 2, Lists: 3, Validates: 4, ReadBytes: 5, WriteBytes: 6, Refused: 7, Corrupt: 8, Errors: 9})
		}},
		{"failure", newFailure(fmt.Errorf("dev: %w", &osd.AssertError{Key: []byte("k")})).encode},
		{"every sentinel", newFailure(errors.Join(sentinels[:]...)).encode},
	}
	var got bytes.Buffer
	for _, m := range messages {
		var e wire.Encoder
		m.encode(&e)
		fmt.Fprintf(&got, "%s: %s\n", m.name, hex.EncodeToString(e.B))
	}
	want, err := os.ReadFile("testdata/version1.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("messages changed. Now:\n%s", got.String())
	}
}
