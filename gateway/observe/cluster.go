package observe

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Cluster is the node's cluster at a look.
type Cluster struct {
	// Nodes counts the members, this node too, by what gossip says of them.
	Nodes map[string]int
	Dead  []string // names of those that do not answer
	// Apart are nodes that run another version than this one, NAME (VERSION).
	Apart []string
	// Skews are the clocks of other nodes that are apart from this one's, by name: positive
	// when they are ahead.
	Skews map[string]time.Duration
	// CertificateLeft is the time left to the node's certificate, AuthorityLeft that to the
	// cluster's authority.
	CertificateLeft, AuthorityLeft time.Duration
}

func (c *Cluster) check(add addCause) {
	for _, name := range c.Dead {
		add(Warning, "node_dead", "node "+name, "bring it back, or take it out with ovgate node remove "+name, "Node %s does not answer", name)
	}
	if len(c.Apart) > 0 {
		add(Warning, "version_apart", "", "upgrade those that are behind; versions are to be apart only while a cluster is upgraded node by node", "Nodes run another version than this one: %s", strings.Join(c.Apart, ", "))
	}
	for name, by := range c.Skews {
		how := "ahead of"
		if by < 0 {
			how, by = "behind", -by
		}
		add(Warning, "clock_skew", "node "+name, "check the time service of both machines (chronyc tracking, timedatectl)", "The clock of node %s is at least %s %s this node's", name, by.Round(100*time.Millisecond), how)
	}
	if c.AuthorityLeft < authorityWarn {
		add(Warning, "authority", "", "plan its replacement: every node and client trusts it", "The cluster's certificate authority ends in %d days", max(int(c.AuthorityLeft/(24*time.Hour)), 0))
	}
	if c.CertificateLeft < certWarn {
		add(Bad, "node_certificate", "", "look up in the node's log why it was not renewed, then restart ovgate", "The node's certificate for other nodes ends in %d days", max(int(c.CertificateLeft/(24*time.Hour)), 0))
	}
}

// SkewWarn is how far clocks of nodes may be apart: the time stamps of a vDisk that changes
// nodes then still tell what was first, to a human.
const SkewWarn = 2 * time.Second

// authorityWarn is the time left to an authority at which its replacement is to be planned.
const authorityWarn = 180 * 24 * time.Hour

// clusterCollector makes metrics of the cluster.
type clusterCollector struct {
	src                    func() *Cluster
	nodes                  *prometheus.Desc
	certificate, authority *prometheus.Desc
}

func newClusterCollector(src func() *Cluster) *clusterCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("ovgate_cluster_"+name, help, labels, nil)
	}
	return &clusterCollector{
		src:         src,
		nodes:       desc("nodes", "Nodes of the cluster, by what this one hears of them.", "liveness"),
		certificate: desc("certificate_seconds_left", "Time to the end of the node's certificate for other nodes."),
		authority:   desc("authority_seconds_left", "Time to the end of the cluster's certificate authority."),
	}
}

// Describe implements prometheus.Collector: none, as a node may be in no cluster.
func (c *clusterCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(ch chan<- prometheus.Metric) {
	v := c.src()
	if v == nil {
		return
	}
	states := make([]string, 0, len(v.Nodes))
	for s := range v.Nodes {
		states = append(states, s)
	}
	slices.SortFunc(states, strings.Compare)
	for _, s := range states {
		send(ch, c.nodes, gauge, float64(v.Nodes[s]), s)
	}
	send(ch, c.certificate, gauge, v.CertificateLeft.Seconds())
	send(ch, c.authority, gauge, v.AuthorityLeft.Seconds())
}
