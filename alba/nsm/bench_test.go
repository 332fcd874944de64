package nsm_test

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// BenchmarkPut stores manifests of a 4 MiB object each, durably. The limit is one sync of
// the disk for those that are under way at a time.
func BenchmarkPut(b *testing.B) {
	for _, store := range []struct {
		name string
		open func(b *testing.B) kv.Store
	}{
		{"bbolt", func(b *testing.B) kv.Store {
			s, err := kv.OpenBolt(filepath.Join(b.TempDir(), "nsm.db"), kv.BoltOptions{})
			must(b, err)
			b.Cleanup(func() { must(b, s.Close()) })
			return s
		}},
		{"etcd", func(b *testing.B) kv.Store { return etcdtest.Serve(b).Open(b, "nsm/") }},
	} {
		for _, clients := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s-%d", store.name, clients), func(b *testing.B) {
				h := nsm.New(store.open(b))
				must(b, h.Create(b.Context(), ns, "ns", stored))
				var n atomic.Uint64
				b.SetParallelism(clients)
				b.ResetTimer()
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						id := n.Add(1)
						m := object(id, fmt.Sprint("o", id), 1)
						if err := h.Apply(b.Context(), ns, 1, nil, []nsm.Change{{Put: m}}); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
			})
		}
	}
}
