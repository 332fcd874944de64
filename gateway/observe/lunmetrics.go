package observe

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openvstorage/ovgate/iscsi"
)

// lunMetric is a metric of a vDisk as initiators see it, with the class of the
// commands as label where there is one.
type lunMetric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*iscsi.LUNStats) float64
}

// opMetric is a metric of one class of commands.
type opMetric struct {
	name, help string
	value      func(*iscsi.IOStats) float64
}

var lunMetrics = []lunMetric{
	{"iscsi_queue_depth", "Commands that are not answered yet.", gauge, func(s *iscsi.LUNStats) float64 { return float64(s.Depth) }},
	{"iscsi_waiting", "Commands held back by limits or for fairness.", gauge, func(s *iscsi.LUNStats) float64 { return float64(s.Waiting) }},
	{"iscsi_delayed_total", "Commands that were held back.", counter, func(s *iscsi.LUNStats) float64 { return float64(s.Delayed) }},
	{"iscsi_task_set_full_total", "Commands answered TASK SET FULL.", counter, func(s *iscsi.LUNStats) float64 { return float64(s.Full) }},
	{"iscsi_aborted_total", "Commands that ended unanswered.", counter, func(s *iscsi.LUNStats) float64 { return float64(s.Aborted) }},
}

var opMetrics = []opMetric{
	{"iscsi_commands_total", "Commands of initiators.", func(s *iscsi.IOStats) float64 { return float64(s.Commands) }},
	{"iscsi_bytes_total", "Bytes read and written by initiators.", func(s *iscsi.IOStats) float64 { return float64(s.Bytes) }},
	{"iscsi_errors_total", "Commands that ended with another status than GOOD.", func(s *iscsi.IOStats) float64 { return float64(s.Errors) }},
}

// ops are the classes of commands, by the label op.
var ops = []struct {
	label string
	of    func(*iscsi.LUNStats) *iscsi.IOStats
}{
	{"read", func(s *iscsi.LUNStats) *iscsi.IOStats { return &s.Read }},
	{"write", func(s *iscsi.LUNStats) *iscsi.IOStats { return &s.Write }},
	{"other", func(s *iscsi.LUNStats) *iscsi.IOStats { return &s.Other }},
}

// lunStep thins the front end's buckets, powers of two, to powers of four: of
// each vDisk there are two histograms, and Prometheus keeps every bucket.
const lunStep = 2

// lunDescs are the descriptions of a collector.
type lunDescs struct {
	luns, ops []*prometheus.Desc
	latency   *prometheus.Desc
}

func newLUNDescs(desc func(name, help string, labels ...string) *prometheus.Desc) lunDescs {
	d := lunDescs{latency: desc("vdisk_iscsi_latency_seconds", "Time from a command's arrival to its answer being handed to the network.", "vpool", "vdisk", "op")}
	for _, m := range lunMetrics {
		d.luns = append(d.luns, desc("vdisk_"+m.name, m.help, "vpool", "vdisk"))
	}
	for _, m := range opMetrics {
		d.ops = append(d.ops, desc("vdisk_"+m.name, m.help, "vpool", "vdisk", "op"))
	}
	return d
}

func (d lunDescs) all() []*prometheus.Desc {
	return append(append([]*prometheus.Desc{d.latency}, d.luns...), d.ops...)
}

// collect passes on what initiators did to a vDisk; nothing for one that is not
// published.
func (d lunDescs) collect(ch chan<- prometheus.Metric, v DiskMetrics) {
	if v.LUN == nil {
		return
	}
	for i, m := range lunMetrics {
		send(ch, d.luns[i], m.kind, m.value(v.LUN), v.VPool, v.Name)
	}
	for _, o := range ops {
		s := o.of(v.LUN)
		for i, m := range opMetrics {
			send(ch, d.ops[i], counter, m.value(s), v.VPool, v.Name, o.label)
		}
		if o.label != "other" {
			lunLatency(ch, d.latency, &s.Latency, v, o.label)
		}
	}
}

func lunLatency(ch chan<- prometheus.Metric, d *prometheus.Desc, h *iscsi.Histogram, v DiskMetrics, op string) {
	upTo, n := make(map[float64]uint64, iscsi.LatencyBuckets/lunStep), uint64(0)
	for i, c := range h.Buckets {
		n += c
		if b := iscsi.LatencyBound(i); b > 0 && i%lunStep == 0 {
			upTo[b.Seconds()] = n
		}
	}
	m, err := prometheus.NewConstHistogram(d, n, h.Sum.Seconds(), upTo, valid([]string{v.VPool, v.Name, op})...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	ch <- m
}

// sumLUN adds up two vDisks that share a label; nil is one that is not published.
func sumLUN(a, b *iscsi.LUNStats) *iscsi.LUNStats {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	out := *a
	for _, o := range ops {
		to, from := o.of(&out), o.of(b)
		to.Commands += from.Commands
		to.Bytes += from.Bytes
		to.Errors += from.Errors
		to.Latency.Sum += from.Latency.Sum
		for i, n := range from.Latency.Buckets {
			to.Latency.Buckets[i] += n
		}
	}
	out.Depth += b.Depth
	out.Waiting += b.Waiting
	out.Delayed += b.Delayed
	out.Full += b.Full
	out.Aborted += b.Aborted
	return &out
}
