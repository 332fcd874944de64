package node

import (
	"cmp"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/series"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// openHistory opens the history of performance. A node whose history cannot be written serves,
// and says so in its health.
func (n *node) openHistory() {
	n.sampler = observe.NewSampler(series.SeriesIn(cmp.Or(n.cfg.MetricsMemory, series.DefaultMemory)))
	n.history = series.Open(series.Options{
		Dir:     func() (blockfs.FS, error) { return blockfs.OS(n.dir.file(metricsDir)) },
		Sampler: n.sampler, Bytes: n.cfg.MetricsBytes, Memory: n.cfg.MetricsMemory, Log: n.log,
	})
	n.onClose(n.history.Close)
}

// machineLoad returns a look at how busy this machine has been since the look before, in
// percent.
func (n *node) machineLoad() func() (cpu, memory float64) {
	var l loadMeter
	return func() (cpu, memory float64) {
		v := l.read(n)
		return float64(v.CPU), float64(v.Memory)
	}
}
