package node

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// loadStep is how coarse shares are told, in percent: each change travels to all nodes.
const loadStep = 5

// loadMeter measures how busy this machine is, from one reading to the next.
type loadMeter struct{ busy, total uint64 }

// read returns the node's load; what the machine does not tell is 0.
func (l *loadMeter) read(n *node) cluster.Load {
	u := n.host.Usage()
	out := cluster.Load{VDisks: u.OpenVDisks, Journal: journalShare(u.Journal)}
	if f, err := os.Open("/proc/stat"); err == nil {
		if busy, total, err := cpuTimes(f); err == nil {
			out.CPU = share(busy-l.busy, total-l.total)
			l.busy, l.total = busy, total
		}
		f.Close()
	}
	if f, err := os.Open("/proc/meminfo"); err == nil {
		out.Memory = memoryShare(f)
		f.Close()
	}
	return out
}

// journalShare is how much of what journals may take holds data, in percent.
func journalShare(u journal.Usage) int {
	return share(uint64(max(u.Bytes-int64(u.Free)*u.ChunkBytes, 0)), uint64(max(u.MaxBytes, 0)))
}

// share returns part of whole in percent, in steps.
func share(part, whole uint64) int {
	if whole == 0 {
		return 0
	}
	percent := min(float64(part)/float64(whole), 1) * 100
	return int(percent/loadStep+0.5) * loadStep
}

// cpuTimes reads /proc/stat: the time that all processors worked, and all their time, since
// the machine started.
func cpuTimes(r io.Reader) (busy, total uint64, err error) {
	var name string
	var t [8]uint64 // user nice system idle iowait irq softirq steal
	if _, err := fmt.Fscan(r, &name, &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]); err != nil || name != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat begins with %.32q: %w", name, err)
	}
	for _, v := range t {
		total += v
	}
	return total - t[3] - t[4], total, nil
}

// memoryShare reads /proc/meminfo: how much of the memory is in use and cannot be given to
// others, in percent.
func memoryShare(r io.Reader) int {
	var total, available uint64
	for s := bufio.NewScanner(r); s.Scan(); {
		for name, to := range map[string]*uint64{"MemTotal:": &total, "MemAvailable:": &available} {
			if rest, ok := strings.CutPrefix(s.Text(), name); ok {
				if _, err := fmt.Sscanf(rest, "%d kB", to); err != nil {
					return 0
				}
			}
		}
	}
	return share(total-min(available, total), total)
}
