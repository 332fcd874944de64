package observe

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// RegistryMember is a member of the etcd that the registry is in.
type RegistryMember struct {
	Endpoint string
	Node     string // id of the node that runs it; empty: others run it
	Leads    bool
	Learner  bool   // it catches up, and counts for no quorum yet
	Err      string // why it says nothing; empty: it answers
	// Size is of its database file, InUse what of that is not free, in bytes; beyond Quota
	// etcd takes no change.
	Size, InUse, Quota int64
	Alarms             []string
}

// registryWarn is how full a member's database is when something is to be done, in percent.
const registryWarn = 75

// NoneAnswers returns why, if no member answers.
func NoneAnswers(members []RegistryMember) (why string) {
	for _, m := range members {
		if m.Err == "" {
			return ""
		}
		why = m.Err
	}
	return why
}

func checkRegistry(members []RegistryMember, add addCause) {
	alarms := map[string]bool{}
	for _, m := range members {
		object := "registry " + m.Endpoint
		if m.Err != "" {
			add(Warning, "registry_member", object, "bring it back, or replace it: etcdctl member list", "The member %s of etcd does not answer, of %d: %s", m.Endpoint, len(members), m.Err)
			continue
		}
		for _, a := range m.Alarms {
			if alarms[a] {
				continue // it is the cluster's, whoever tells
			}
			alarms[a] = true
			hint := "look up in etcd's documentation what it means, mend it, then: etcdctl alarm disarm"
			if a == "NOSPACE" {
				hint = "compact and defragment etcd, or raise its --quota-backend-bytes, then: etcdctl alarm disarm; nothing can be changed until then"
			}
			add(Bad, "registry_alarm", "registry", hint, "etcd has raised the alarm %s", a)
		}
		if used := int(float64(m.Size) / float64(max(m.Quota, 1)) * 100); used >= registryWarn {
			hint := "defragment it: etcdctl defrag"
			if int(float64(m.InUse)/float64(max(m.Quota, 1))*100) >= registryWarn {
				hint = "set --auto-compaction-retention for etcd, defragment it, or raise its --quota-backend-bytes"
			}
			add(Warning, "registry_filling", object, hint, "The database of the member %s of etcd has %d %% of the size at which it takes no change", m.Endpoint, used)
		}
	}
}

// registryCollector makes metrics of the registry's members.
type registryCollector struct {
	src                   func() []RegistryMember
	up, size, used, quota *prometheus.Desc
}

func newRegistryCollector(src func() []RegistryMember) *registryCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("ovgate_registry_member_"+name, help, []string{"endpoint"}, nil)
	}
	return &registryCollector{
		src:   src,
		up:    desc("up", "Whether a member of the registry's etcd answered last."),
		size:  desc("database_bytes", "Size of its database file."),
		used:  desc("database_used_bytes", "What of that is in use."),
		quota: desc("database_quota_bytes", "Size at which it takes no change."),
	}
}

// Describe implements prometheus.Collector: none, as the registry may be in no etcd.
func (c *registryCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *registryCollector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c.src() {
		endpoint := strings.ToValidUTF8(m.Endpoint, "?")
		if m.Err != "" {
			send(ch, c.up, gauge, 0, endpoint)
			continue
		}
		send(ch, c.up, gauge, 1, endpoint)
		send(ch, c.size, gauge, float64(m.Size), endpoint)
		send(ch, c.used, gauge, float64(m.InUse), endpoint)
		send(ch, c.quota, gauge, float64(m.Quota), endpoint)
	}
}
