package alba

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/openvstorage/ovgate/alba/manager"
)

// What the devices use is what the manifests say, within 1 %, also after deletes and
// uploads that came to nothing.
func TestUse(t *testing.T) {
	dir := t.TempDir()
	s := newService(t, dir, registry(t, dir))
	defer s.Close()
	b, err := s.Store(t.Context(), "pool", "")
	must(t, err)
	data := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	const objects = 6
	for i := range 2 * objects {
		must(t, b.Put(t.Context(), fmt.Sprintf("o%d", i), data[i*1000:]))
	}
	for i := range objects {
		must(t, b.Delete(t.Context(), fmt.Sprintf("o%d", i)))
	}
	r, err := s.open(t.Context())
	must(t, err)
	must(t, r.agent.Garbage(t.Context()))
	must(t, r.agent.Survey(t.Context()))
	must(t, r.agent.Probe(t.Context()))
	seen, err := r.manager.SeenAll(t.Context())
	must(t, err)
	var used int64
	for _, o := range seen {
		used += o.Used
	}
	stored := r.agent.Safety().Stored
	t.Logf("%d bytes used for %d stored: %+.2f %%", used, stored, 100*(float64(used)/float64(stored)-1))
	if d := used - stored; d < 0 || d > stored/100 {
		t.Errorf("%d bytes used, the manifests say %d", used, stored)
	}
	got, err := b.Get(t.Context(), fmt.Sprintf("o%d", objects), 16<<20)
	must(t, err)
	if !bytes.Equal(got, data[objects*1000:]) {
		t.Fatal("wrong content")
	}
	osds, err := s.OSDs(t.Context())
	must(t, err)
	if len(osds) == 0 || osds[0].State != manager.InUse || osds[0].Directory != filepath.Join(dir, asdDir, "1") {
		t.Fatalf("%+v", osds)
	}
}
