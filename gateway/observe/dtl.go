package observe

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openvstorage/ovgate/volumedriver/dtl"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// checkDTL tells of a vDisk whose newest writes are on one node only, where another one
// could have them too.
func (d DiskCheck) checkDTL(add addCause) {
	if !d.Open || !d.Mirrorable {
		return
	}
	object := "vdisk " + d.Name
	switch d.DTL.State {
	case volume.DTLOff, "":
		add(Warning, "dtl_off", object, "ovgate vdisk set "+d.Name+" --dtl sync", "The newest writes of vDisk %s are on one node only: its DTL is off", d.Name)
	case volume.DTLDegraded:
		text := fmt.Sprintf("The newest writes of vDisk %s are on one node only: its DTL is degraded", d.Name)
		if d.DTL.Err != "" {
			text += ": " + d.DTL.Err
		}
		add(Warning, "dtl_degraded", object, "bring that node back, or name another one: ovgate vdisk set "+d.Name+" --dtl-peer NODE; it is tried again by itself", "%s", text)
	case volume.DTLCatchup:
		add(Warning, "dtl_catchup", object, "wait: it becomes good when the backend has what was written before",
			"The newest writes of vDisk %s are on one node only: its DTL catches up, %d of %d writes are on the backend", d.Name, d.DTL.CaughtUp, d.DTL.Catchup)
	}
}

// dtlStates are the states as numbers.
var dtlStates = map[volume.DTLState]float64{volume.DTLOK: 1, volume.DTLCatchup: 2, volume.DTLDegraded: 3}

var dtlDiskMetrics = []metric[volume.DTLStats]{
	{"state", gauge, "Copy of the journal on another node: 0 off, 1 ok, 2 catchup, 3 degraded.", func(s volume.DTLStats) float64 { return dtlStates[s.State] }},
	{"lag_bytes", gauge, "What the other node was sent and has not answered.", func(s volume.DTLStats) float64 { return float64(s.Unanswered) }},
	{"lag_seconds", gauge, "How long the oldest of that waits.", func(s volume.DTLStats) float64 { return s.Lag.Seconds() }},
	{"catchup_writes", gauge, "While it catches up: writes that the backend has to get yet.", func(s volume.DTLStats) float64 { return float64(s.Catchup - s.CaughtUp) }},
}

var dtlHostMetrics = []metric[dtl.Usage]{
	{"copies", gauge, "Copies of other nodes' journals that are here.", func(u dtl.Usage) float64 { return float64(u.Copies) }},
	{"copy_bytes", gauge, "Journal chunks of these copies.", func(u dtl.Usage) float64 { return float64(u.Bytes) }},
	{"copy_max_bytes", gauge, "Most they may take; 0: this node takes none.", func(u dtl.Usage) float64 { return float64(u.MaxBytes) }},
	{"sessions", gauge, "Nodes that are connected for their copies.", func(u dtl.Usage) float64 { return float64(u.Sessions) }},
}

// dtlDescs are the metrics of the DTL.
type dtlDescs struct {
	disks, host []*prometheus.Desc
	latency     *prometheus.Desc
}

func newDTLDescs(desc func(name, help string, labels ...string) *prometheus.Desc) dtlDescs {
	d := dtlDescs{latency: desc("dtl_latency_seconds", "Time from the sending of a record to the answer of the node with the copy.", "vpool", "vdisk")}
	for _, m := range dtlDiskMetrics {
		d.disks = append(d.disks, desc("dtl_"+m.name, m.help, "vpool", "vdisk"))
	}
	for _, m := range dtlHostMetrics {
		d.host = append(d.host, desc("dtl_"+m.name, m.help))
	}
	return d
}

func (d dtlDescs) all() []*prometheus.Desc {
	return append(append([]*prometheus.Desc{d.latency}, d.disks...), d.host...)
}

func (d dtlDescs) collectDisk(ch chan<- prometheus.Metric, v DiskMetrics) {
	for i, m := range dtlDiskMetrics {
		send(ch, d.disks[i], m.kind, m.value(v.Stats.DTL), v.VPool, v.Name)
	}
	latency(ch, d.latency, v.Stats.DTL.Latency, v)
}

func (d dtlDescs) collectHost(ch chan<- prometheus.Metric, u volume.HostUsage) {
	for i, m := range dtlHostMetrics {
		send(ch, d.host[i], m.kind, m.value(u.DTL))
	}
}

// sumDTL sums those of vDisks that share a label: the worst state, and the longest wait.
func sumDTL(a, b volume.DTLStats) volume.DTLStats {
	if dtlStates[b.State] > dtlStates[a.State] {
		a.State = b.State
	}
	a.Lag = max(a.Lag, b.Lag)
	a.Unanswered += b.Unanswered
	a.Catchup += b.Catchup
	a.CaughtUp += b.CaughtUp
	for i := range a.Latency {
		a.Latency[i] += b.Latency[i]
	}
	return a
}
