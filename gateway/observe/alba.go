package observe

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Alba is what is looked at of the object store.
type Alba struct {
	Err     string // why it cannot be looked at
	OSDs    []OSDCheck
	Objects int64
	Stored  int64 // bytes of all fragments
	Repair  int64 // objects that are not complete
	// Tolerates is how many more devices may be lost without losing an object, when
	// Surveyed; Lost objects cannot be read now, AtRisk ones after the next loss.
	Surveyed     bool
	Tolerates    int
	Lost, AtRisk int64
	// RepairSince is since when some were incomplete at each look; zero: none is.
	RepairSince time.Time
	// RepairLate: that is so for longer than repair takes.
	RepairLate bool
	// NodeRisk says why what is stored by default does not outlive a node of the cluster;
	// empty: it does, or there is one node.
	NodeRisk string
	Counters []AlbaCounter
}

// OSDCheck is one device.
type OSDCheck struct {
	Number     uint32
	Place      string
	Problem    string // empty: it works
	Full       bool
	Used, Free int64 // bytes

	Disk        string // that it is on; empty: not known
	Healthy     *bool  // as the disk says; nil: it does not tell
	Temperature *int   // of the disk, degrees Celsius; nil: it does not tell
}

// AlbaCounter is a counter of the object store's client since its start.
type AlbaCounter struct {
	Name, Help string // ovgate_alba_<Name>_total
	Value      uint64
}

// check names what is wrong with the object store.
func (a *Alba) check(add addCause) {
	if a.Err != "" {
		add(Bad, "alba", "", "the log says more; restart ovgate once the cause is removed", "The object store cannot be looked at: %s", a.Err)
	}
	switch {
	case a.Lost > 0:
		add(Bad, "alba_lost", "", "bring devices back: ovgate osd list", "%d objects cannot be read with the devices that work", a.Lost)
	case a.Surveyed && a.Tolerates == 0 && a.AtRisk > 0:
		add(Bad, "alba_safety", "", "bring devices back, or add some: ovgate osd list", "The loss of another device could lose %d objects", a.AtRisk)
	}
	if a.NodeRisk != "" {
		add(Warning, "alba_node", "preset default", "claim devices on more nodes, two on each of three: ovgate osd list", "Objects of the default preset do not outlive a node: %s", a.NodeRisk)
	}
	if a.RepairLate {
		add(Warning, "alba_incomplete", "", "see that enough devices work, in enough places, and have space: ovgate osd list, ovgate alba status", "%d objects have had fewer fragments than they should since %s", a.Repair, a.RepairSince.UTC().Format(time.RFC3339))
	}
	for _, o := range a.OSDs {
		object := fmt.Sprintf("osd %d", o.Number)
		switch {
		case o.Problem != "":
			add(Warning, "osd", object, "bring it back, or give it up with osd purge; what it held is made anew after auto_repair", "Device %d (%s) does not work: %s", o.Number, o.Place, o.Problem)
		case o.Healthy != nil && !*o.Healthy:
			add(Warning, "osd_disk", object, "replace it before it fails: ovgate osd replace", "The disk of device %d (%s) says that it fails", o.Number, o.Disk)
		case o.Temperature != nil && *o.Temperature >= hotDisk:
			add(Warning, "osd_hot", object, "see to its cooling: heat shortens the life of disks", "The disk of device %d (%s) has %d degrees Celsius", o.Number, o.Disk, *o.Temperature)
		case o.Full:
			add(Warning, "osd_full", object, "add devices, or delete vDisks", "Device %d (%s) is full", o.Number, o.Place)
		}
	}
	used, free := a.space()
	space(used+free, free, "alba", "", "The object store", add)
}

// hotDisk is the temperature of a disk, in degrees Celsius, that is above what makers of
// rotating disks allow.
const hotDisk = 60

// space sums the devices, in bytes.
func (a *Alba) space() (used, free int64) {
	for _, o := range a.OSDs {
		used, free = used+o.Used, free+o.Free
	}
	return used, free
}

// albaCollector makes metrics of the object store.
type albaCollector struct {
	src                                     func() *Alba
	objects, stored, repair, lost, tolerate *prometheus.Desc
	up, used, free, healthy, temperature    *prometheus.Desc
}

func newAlbaCollector(src func() *Alba) *albaCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("ovgate_alba_"+name, help, labels, nil)
	}
	return &albaCollector{
		src:      src,
		objects:  desc("objects", "Objects, at the last survey."),
		stored:   desc("stored_bytes", "Bytes of all fragments, at the last survey."),
		repair:   desc("repair_objects", "Objects that are not complete, at the last survey."),
		lost:     desc("lost_objects", "Objects that cannot be read with the devices that work."),
		tolerate: desc("tolerated_losses", "Devices that may be lost without losing an object; -1: some cannot be read now."),
		up:       desc("osd_up", "1 while the device works.", "osd"),
		used:     desc("osd_used_bytes", "Bytes that the device's values and index take.", "osd"),
		free:     desc("osd_free_bytes", "Bytes that can still be written.", "osd"),
		healthy:  prometheus.NewDesc("ovgate_osd_disk_healthy", "1 while the device's disk says that it is healthy (SMART).", []string{"osd"}, nil),

		temperature: prometheus.NewDesc("ovgate_osd_disk_temperature_celsius", "Temperature of the device's disk.", []string{"osd"}, nil),
	}
}

// Describe implements prometheus.Collector: none, as counters come with the client.
func (c *albaCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *albaCollector) Collect(ch chan<- prometheus.Metric) {
	a := c.src()
	if a == nil {
		return
	}
	if a.Surveyed {
		send(ch, c.objects, gauge, float64(a.Objects))
		send(ch, c.stored, gauge, float64(a.Stored))
		send(ch, c.repair, gauge, float64(a.Repair))
		send(ch, c.lost, gauge, float64(a.Lost))
		send(ch, c.tolerate, gauge, float64(a.Tolerates))
	}
	for _, o := range a.OSDs {
		up := 0.0
		if o.Problem == "" {
			up = 1
		}
		n := strconv.FormatUint(uint64(o.Number), 10)
		send(ch, c.up, gauge, up, n)
		send(ch, c.used, gauge, float64(o.Used), n)
		send(ch, c.free, gauge, float64(o.Free), n)
		if o.Healthy != nil {
			healthy := 0.0
			if *o.Healthy {
				healthy = 1
			}
			send(ch, c.healthy, gauge, healthy, n)
		}
		if o.Temperature != nil {
			send(ch, c.temperature, gauge, float64(*o.Temperature), n)
		}
	}
	for _, n := range a.Counters {
		send(ch, prometheus.NewDesc("ovgate_alba_"+n.Name+"_total", n.Help, nil, nil), counter, float64(n.Value))
	}
}
