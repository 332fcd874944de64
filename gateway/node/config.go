package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openvstorage/ovgate/gateway/observe/series"
	"github.com/openvstorage/ovgate/iscsi"
)

// Defaults: everything on loopback unless configured.
const (
	DefaultAPI   = "127.0.0.1:8443"
	DefaultISCSI = "127.0.0.1:3260"
	// DefaultGossip is where a node of a cluster hears the others.
	DefaultGossip = "127.0.0.1:7946"
	// defaultStop is the time to drain and commit at a stop; systemd's own
	// limit is 90 s.
	defaultStop = 60 * time.Second
	// maxConfig bounds the configuration file, in bytes.
	maxConfig = 1 << 20
)

// config is the configuration file; every field has a zero default, and the
// first five have a flag that goes before it.
//
//	api: 127.0.0.1:8443          # host:port of API and UI
//	iscsi: 127.0.0.1:3260        # host:port of the iSCSI portal, or a list of them; the
//	                             # first is portal group 1, the second 2, ...
//	advertise: [10.0.0.5:3260]   # portals as initiators reach them; with several iscsi
//	                             # addresses one for each, in that order
//	insecure: false              # plain HTTP, loopback only
//	tls:                         # a certificate of the site for API and UI, shown to those who
//	                             # use a name that is in it; read again when the files change
//	  certificate: /PATH.pem     # then those between it and its authority
//	  key: /PATH.pem             # not for every user to read
//	node_name: HOSTNAME          # what the node is called; default: what it was called before,
//	                             # at the first start the name of the host
//	log_format: text             # text or json
//	log_level: info              # debug, info, warn, error
//	metrics_open: false          # /metrics without a token
//	domain: RACK                 # what fails together with this node; copies go elsewhere if they can, fragments
//	                             # where a preset spreads by domain
//	dtl:                         # copies of other nodes' journals; default: none, for a node of
//	                             # a cluster 127.0.0.1:8600
//	  listen: 127.0.0.1:8600     # beyond loopback with the cluster's certificates only
//	  advertise: 10.0.1.5:8600   # as other nodes reach it
//	  memory: 1073741824         # keep copies in that much memory; default: durably, in the
//	                             # journals' place on the first WRITE disk
//	  clear: false               # true: nodes that both have it show each other their certificates,
//	                             # and go on without encryption; for a network of their own
//	paths: all                   # other nodes' vDisks have a path through this node, too: their
//	                             # commands are forwarded; owner: they have none
//	discovery_chap: optional     # of initiators that ask which targets there are: who insists on
//	                             # CHAP proves what its group demands; required: all do; none:
//	                             # nobody does, and who insists on it is refused
//	registry:                    # etcd for the registry; default: kv.db in the data directory,
//	                             # which moves there at the first start with this
//	  etcd: [https://10.0.0.7:2379]
//	  prefix: ovgate/            # of all keys; an installation has its own
//	  ca, certificate, key: /PATH.pem
//	  user: NAME
//	  password_file: /PATH       # mode 0600
//	  member:                    # in place of etcd: the node runs a member of the registry itself
//	    listen: 10.0.0.5:2379    # IP:PORT for nodes
//	    peers: 10.0.0.5:2380     # IP:PORT for other members
//	    dir: /PATH               # default: etcd in the data directory
//	cluster:                     # of a node that is in a cluster
//	  listen: 127.0.0.1:7946     # IP:PORT of the gossip, UDP and TCP
//	  advertise: 10.0.0.5:7946   # as other nodes reach it; default: listen
//	  lease: 2s                  # 2s to 5s; without the registry's answer for so long the node
//	                             # serves nothing, and half a second later others take over
//	journal_bytes: 4294967296    # most the journal chunks take
//	chunk_bytes: 16777216        # size of a journal chunk
//	cache_bytes: 134217728       # read cache in memory
//	write_disks: []              # journals on disks of their own: {dir: /mnt/nvme0/ovgate, bytes: N}
//	lost_write_disks: []         # directories of WRITE disks that do not come back: vDisks that
//	                             # had acknowledged writes there become lost_tail
//	read_cache: []               # read cache on disks: {dir: /mnt/nvme0/cache, bytes: N}
//	asds: []                     # devices of the Alba: {dir: /mnt/disk1/ovgate, bytes: N}; bytes
//	                             # may be left out; default: six places in the data directory,
//	                             # made with the first vPool that needs them
//	alba:                        # devices for the other nodes of the cluster; default: none, for a
//	                             # node of a cluster 127.0.0.1:8550
//	  listen: 127.0.0.1:8550     # beyond loopback with the cluster's certificates only
//	  advertise: 10.0.1.5:8550   # as other nodes reach it
//	  clear: false               # true: after the handshake nothing is encrypted on its way between
//	                             # this node and devices, those of other machines too, where the
//	                             # other end says so as well; for a network that nobody else is on
//	alba_key_file: /PATH         # wraps the data keys of encrypted presets; default: alba/wrap.key in
//	                             # the data directory, in a cluster sealed in the registry. Rotation
//	                             # writes beside it
//	auto_repair: 15m             # silence after which what a device holds is made anew
//	write_memory_bytes: 268435456 # journal data kept in memory
//	map_memory: 1073741824       # pages of the vDisks' maps kept in memory; default: an
//	                             # eighth of the machine's memory, see defaultMapMemory
//	uploads: 8                   # SCOs in flight to backends
//	no_schedules: false          # true: no scheduled jobs (snapshots, retention, scrubs) on this node
//	audit_bytes: 268435456       # of the audit log; the oldest entries go first
//	audit_age: 2160h             # how long an entry of the audit log is kept
//	events:                      # the history of events
//	  bytes: 67108864            # the oldest go first
//	  age: 720h                  # how long one is kept
//	  syslog: tcp://HOST:601     # where they go, too: udp, tcp or tls (RFC 5424)
//	  syslog_ca: /PATH.pem       # that signs the server's certificate; default: the system's
//	metrics_bytes: 1073741824    # of the history of performance; the oldest goes first
//	metrics_memory: 100663296    # for it: as many vDisks have one as it has times 96 KiB
//	stop_timeout: 60s            # to drain and commit at a stop
type config struct {
	API         string    `yaml:"api"`
	ISCSI       addresses `yaml:"iscsi"`
	Advertise   []string  `yaml:"advertise"`
	Insecure    bool      `yaml:"insecure"`
	TLS         tlsConfig `yaml:"tls"`
	NodeName    string    `yaml:"node_name"`
	LogFormat   string    `yaml:"log_format"`
	LogLevel    string    `yaml:"log_level"`
	MetricsOpen bool      `yaml:"metrics_open"`

	Registry registryConfig `yaml:"registry"`
	Cluster  clusterConfig  `yaml:"cluster"`
	DTL      dtlConfig      `yaml:"dtl"`
	Alba     devicesConfig  `yaml:"alba"`
	Domain   string         `yaml:"domain"`
	Paths    string         `yaml:"paths"`

	DiscoveryCHAP string `yaml:"discovery_chap"`

	JournalBytes     int64         `yaml:"journal_bytes"`
	ChunkBytes       int64         `yaml:"chunk_bytes"`
	CacheBytes       int64         `yaml:"cache_bytes"`
	WriteDisks       []diskDir     `yaml:"write_disks"`
	LostWriteDisks   []string      `yaml:"lost_write_disks"`
	ReadCache        []diskDir     `yaml:"read_cache"`
	ASDs             []diskDir     `yaml:"asds"`
	AlbaKeyFile      string        `yaml:"alba_key_file"`
	AutoRepair       time.Duration `yaml:"auto_repair"`
	WriteMemoryBytes int64         `yaml:"write_memory_bytes"`
	MapMemory        int64         `yaml:"map_memory"`
	Uploads          int           `yaml:"uploads"`
	NoSchedules      bool          `yaml:"no_schedules"`
	AuditBytes       int64         `yaml:"audit_bytes"`
	AuditAge         time.Duration `yaml:"audit_age"`
	Events           eventsConfig  `yaml:"events"`
	MetricsBytes     int64         `yaml:"metrics_bytes"`
	MetricsMemory    int64         `yaml:"metrics_memory"`
	StopTimeout      time.Duration `yaml:"stop_timeout"`
}

// addresses is one address or a list of them.
type addresses []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (a *addresses) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		var one string
		if err := n.Decode(&one); err != nil {
			return err
		}
		*a = nil
		if one != "" {
			*a = addresses{one}
		}
		return nil
	}
	return n.Decode((*[]string)(a))
}

// loadConfig reads the file, puts the flags over it and checks the result.
func loadConfig(o Options) (config, error) {
	var c config
	if o.Config != "" {
		if err := readConfig(o.Config, &c); err != nil {
			return c, err
		}
	}
	over := func(v *string, flag, def string) {
		if flag != "" {
			*v = flag
		}
		if *v == "" {
			*v = def
		}
	}
	over(&c.API, o.API, DefaultAPI)
	if len(o.ISCSI) > 0 {
		c.ISCSI = o.ISCSI
	}
	if len(c.ISCSI) == 0 {
		c.ISCSI = addresses{DefaultISCSI}
	}
	over(&c.LogFormat, o.LogFormat, "text")
	over(&c.LogLevel, "", "info")
	if len(o.Advertise) > 0 {
		c.Advertise = o.Advertise
	}
	if o.MapMemory != 0 {
		c.MapMemory = o.MapMemory
	}
	over(&c.Cluster.Listen, "", DefaultGossip)
	c.Insecure = c.Insecure || o.Insecure
	if c.StopTimeout == 0 {
		c.StopTimeout = defaultStop
	}
	return c, c.check()
}

func readConfig(path string, c *config) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("configuration: %w: check --config", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if len(b) > maxConfig {
		return fmt.Errorf("configuration %s is longer than %d bytes", path, maxConfig)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration %s: %s: correct the file, or remove that line", path, plainYAML(err))
	}
	return nil
}

var unknownKey = regexp.MustCompile(` not found in type node\.\w+`)

// plainYAML takes Go's type names out of yaml's message.
func plainYAML(err error) string {
	s := strings.TrimPrefix(err.Error(), "yaml: ")
	s = strings.ReplaceAll(s, "unmarshal errors:\n  ", "")
	s = unknownKey.ReplaceAllString(s, " is not a known key")
	return strings.ReplaceAll(s, "\n  ", "; ")
}

// Bounds of numbers in the configuration.
const (
	minJournal = 256 << 20
	minCache   = 1 << 20
	// minMapMemory is what a few busy vDisks need so that reads find most of the map.
	minMapMemory = 16 << 20
	maxMemory    = 1 << 40
	minChunk     = 1 << 20
	maxChunk     = 1 << 30
	maxUploads   = 256
	minStop      = time.Second
	maxStop      = time.Hour
	maxPortals   = 64

	minAutoRepair = time.Second
	maxAutoRepair = 30 * 24 * time.Hour
)

func (c config) check() error {
	ranges := []struct {
		key      string
		v        int64
		min, max int64
	}{
		{"journal_bytes", c.JournalBytes, minJournal, maxMemory},
		{"chunk_bytes", c.ChunkBytes, minChunk, maxChunk},
		{"cache_bytes", c.CacheBytes, minCache, maxMemory},
		{"write_memory_bytes", c.WriteMemoryBytes, minCache, maxMemory},
		{"map_memory", c.MapMemory, minMapMemory, maxMemory},
		{"uploads", int64(c.Uploads), 1, maxUploads},
		{"audit_bytes", c.AuditBytes, minAuditBytes, maxAuditBytes},
		{"events.bytes", c.Events.Bytes, minEventBytes, maxEventBytes},
		{"metrics_bytes", c.MetricsBytes, series.MinBytes, series.MaxBytes},
		{"metrics_memory", c.MetricsMemory, series.MinMemory, series.MaxMemory},
	}
	for _, r := range ranges {
		if r.v != 0 && (r.v < r.min || r.v > r.max) {
			return fmt.Errorf("configuration: %s is %d: use %d to %d", r.key, r.v, r.min, r.max)
		}
	}
	if c.ChunkBytes%minChunk != 0 {
		return fmt.Errorf("configuration: chunk_bytes is %d: use a multiple of %d", c.ChunkBytes, minChunk)
	}
	if c.StopTimeout < minStop || c.StopTimeout > maxStop {
		return fmt.Errorf("configuration: stop_timeout is %s: use %s to %s", c.StopTimeout, minStop, maxStop)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("configuration: log_format is %q: use text or json", c.LogFormat)
	}
	if _, err := c.level(); err != nil {
		return err
	}
	if err := errors.Join(c.checkPortals(), c.TLS.check(c.Insecure), c.Registry.check(), c.Cluster.check(), c.DTL.check(), c.Alba.check(), c.Events.check(), checkDomain(c.Domain)); err != nil {
		return err
	}
	if c.NodeName != "" && !nodeName.MatchString(c.NodeName) {
		return fmt.Errorf("configuration: node_name is %.100q: use 1 to 63 letters, digits, dots, hyphens and underscores, and begin with a letter or digit", c.NodeName)
	}
	if c.AutoRepair != 0 && (c.AutoRepair < minAutoRepair || c.AutoRepair > maxAutoRepair) {
		return fmt.Errorf("configuration: auto_repair is %s: use %s to %s", c.AutoRepair, minAutoRepair, maxAutoRepair)
	}
	if c.AuditAge != 0 && (c.AuditAge < minAuditAge || c.AuditAge > maxAuditAge) {
		return fmt.Errorf("configuration: audit_age is %s: use %s to %s", c.AuditAge, minAuditAge, maxAuditAge)
	}
	if c.AlbaKeyFile != "" && !filepath.IsAbs(c.AlbaKeyFile) {
		return fmt.Errorf("configuration: alba_key_file is %q: name it from the root", c.AlbaKeyFile)
	}
	if err := errors.Join(readRole.check(c.ReadCache), writeRole.check(c.WriteDisks), backendRole.check(c.ASDs)); err != nil {
		return err
	}
	for _, d := range c.WriteDisks {
		if slices.ContainsFunc(c.LostWriteDisks, func(lost string) bool { return filepath.Clean(lost) == filepath.Clean(d.Dir) }) {
			return fmt.Errorf("configuration: %s is in write_disks and in lost_write_disks: start once without it in write_disks, then leave it out of lost_write_disks", d.Dir)
		}
	}
	host, _, err := splitAddress("api", c.API)
	if err != nil {
		return err
	}
	if c.Insecure && !loopback(host) {
		return fmt.Errorf("api: plain HTTP (--insecure) on %s: it is served on loopback only; leave out --insecure, or use --api 127.0.0.1:8443", c.API)
	}
	return nil
}

func (c config) checkPortals() error {
	if c.Paths != "" && c.Paths != pathsAll && c.Paths != pathsOwner {
		return fmt.Errorf("configuration: paths is %.100q: use all or owner", c.Paths)
	}
	if _, ok := discoveries[c.DiscoveryCHAP]; !ok {
		return fmt.Errorf("configuration: discovery_chap is %.100q: use none, optional or required", c.DiscoveryCHAP)
	}
	if len(c.Advertise) > maxPortals {
		return fmt.Errorf("configuration: advertise has %d portals: use at most %d", len(c.Advertise), maxPortals)
	}
	for i, a := range c.Advertise {
		if _, port, err := splitAddress("advertise", a); err != nil {
			return err
		} else if port == 0 {
			return fmt.Errorf("advertise: address %q has port 0: name the port that initiators use", a)
		}
		if slices.Contains(c.Advertise[:i], a) {
			return fmt.Errorf("advertise: address %q is given twice: leave one out", a)
		}
	}
	if len(c.ISCSI) > maxPortals {
		return fmt.Errorf("configuration: iscsi has %d addresses: use at most %d", len(c.ISCSI), maxPortals)
	}
	for i, a := range c.ISCSI {
		_, port, err := splitAddress("iscsi", a)
		if err != nil {
			return err
		}
		if port != 0 && slices.Contains(c.ISCSI[:i], a) {
			return fmt.Errorf("iscsi: address %q is given twice: leave one out", a)
		}
	}
	if n := len(c.ISCSI); n > 1 && len(c.Advertise) > 0 && len(c.Advertise) != n {
		return fmt.Errorf("configuration: iscsi has %d addresses and advertise %d: with several, advertise one for each, in the same order", n, len(c.Advertise))
	}
	return nil
}

func (c config) level() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return l, fmt.Errorf("configuration: log_level is %q: use debug, info, warn or error", c.LogLevel)
	}
	return l, nil
}

// splitAddress checks HOST:PORT; the host may be empty or an IPv6 address in brackets.
func splitAddress(what, s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%s: address %q is not HOST:PORT: write for example 127.0.0.1:8443 or [::1]:8443", what, s)
	}
	return host, port, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// listen binds an address, naming the flag that changes it.
func listen(what, flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s cannot listen on %s: %w: stop what uses it, or choose another address with %s", what, address, err, flag)
	}
	return l, nil
}

// portals returns the portals of the node: each address that it listens on is a
// portal group, numbered from first by its place in the configuration, so that the
// tags stay when an address does. Initiators are told the advertised addresses,
// else the bound one, else, when bound to every address, those of this machine.
func portals(first uint16, advertise []string, bound []net.Addr) []iscsi.Portal {
	var out []iscsi.Portal
	for i, b := range bound {
		told := machineAddresses(b)
		switch {
		case len(bound) == 1 && len(advertise) > 0:
			told = advertise
		case len(advertise) > 0:
			told = advertise[i : i+1]
		}
		for _, a := range told {
			dup := slices.ContainsFunc(out, func(p iscsi.Portal) bool { return p.Address == a })
			if !dup && len(out) < maxPortals {
				out = append(out, iscsi.Portal{Address: a, Local: b.String(), Group: first + uint16(i)})
			}
		}
	}
	return out
}

// machineAddresses returns the bound address, or those that it stands for.
func machineAddresses(bound net.Addr) []string {
	tcp, ok := bound.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return []string{bound.String()}
	}
	port := strconv.Itoa(tcp.Port)
	var out []string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		addrs = nil
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() && (n.IP.To4() != nil || tcp.IP.To4() == nil) && len(out) < maxPortals {
			out = append(out, net.JoinHostPort(n.IP.String(), port))
		}
	}
	if len(out) == 0 {
		out = []string{net.JoinHostPort("127.0.0.1", port)}
	}
	return out
}
