package etcdtest

import (
	"path/filepath"
	"testing"

	"github.com/openvstorage/ovgate/internal/kv"
)

// EachStore runs a test on bbolt, which nodes of one process share, and on etcd; open is
// called once for each node.
func EachStore(t *testing.T, test func(t *testing.T, open func() kv.Store)) {
	t.Run("bbolt", func(t *testing.T) {
		b, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		test(t, func() kv.Store { return b })
	})
	t.Run("etcd", func(t *testing.T) {
		m := Serve(t)
		test(t, func() kv.Store { return m.Open(t, "ovgate/test/") })
	})
}
