package volume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/dtl"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// DTLMode says whether the tail of a vDisk's journal is kept on another node too (rule O2).
type DTLMode string

// Modes.
const (
	DTLModeOff DTLMode = "off"
	// DTLSync: a write is answered when both nodes have it durably, or when the registry
	// says that only this one has.
	DTLSync DTLMode = "sync"
	// DTLAsync: a write is answered when this node has it durably; the other one has all
	// but the newest, asyncLag bytes at most. A takeover needs somebody's word for that.
	DTLAsync DTLMode = "async"
)

// asyncLag bounds what a peer may lack of a journal that it mirrors with DTLAsync, in
// bytes of records: eight of the largest records that carry several commands, less than a second of a
// link of 100 Mbit/s.
const asyncLag = 8 << 20

// DTLOptions configure the mirroring of journals. Cluster, Dial and Peers must be set.
type DTLOptions struct {
	Cluster string // id of the cluster; other clusters' nodes are refused
	// Dial connects to the DTL server of a node, with TLS if the network wants it, and
	// returns soon after ctx ends.
	Dial func(ctx context.Context, node string) (net.Conn, error)
	// Peers returns the nodes that may have the copy of a vDisk, the best first. It does
	// not wait for anything.
	Peers func(id ID) []string
	// Gone tells whether a node may serve nothing now, and needs the registry's word to serve
	// again: one that lost the registry alone, and asks its peer on, does not keep a vDisk
	// from who takes it over. It returns soon after ctx ends. nil: that is not known of any.
	Gone func(ctx context.Context, node string) bool
	// MaxBytes bounds the copies that are here of other nodes' journals; 0: half of what
	// the journals on their WRITE disk may take, so that the other half is this node's.
	MaxBytes int64
	// MemoryBytes keeps the copies in that much memory, not durably: they outlive a crash of
	// the other node, not one of both. 0: on disk.
	MemoryBytes int64
	// Lost is after how long without an answer a peer counts as lost; 0: 2 s.
	Lost time.Duration
}

// nodeDTL is what a host has for the journals of other nodes, and for the copies of its own.
type nodeDTL struct {
	h      *Host
	o      DTLOptions
	server *dtl.Server
	memory *journal.Pool // of the copies; nil: they are on disk

	ctx    context.Context // ends with the host
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	clients map[string]*dtl.Client // by node
	closed  bool
}

const dtlDir = "dtl"

// openDTL reads the copies that are here. They are on the first WRITE disk that a journal
// may begin on, as long as that stays the first.
func (h *Host) openDTL() error {
	o := h.o.DTL
	if o == nil {
		return nil
	}
	if o.Cluster == "" || h.o.Node == "" || o.Dial == nil || o.Peers == nil {
		return fmt.Errorf("%w: the DTL needs a cluster, a node, and a way to its peers", ErrInvalid)
	}
	disk := h.disks[0]
	for _, d := range h.disks {
		if d.usable() {
			disk = d
			break
		}
	}
	so := dtl.ServerOptions{Cluster: o.Cluster, Node: h.o.Node, FS: h.o.FS, Dir: dtlDir, Pool: disk.pool,
		Clock: h.o.Clock, Rand: h.o.Rand, Log: h.o.Log, MaxBytes: o.MaxBytes, Gone: o.Gone}
	setDefault(&so.MaxBytes, disk.pool.Usage().MaxBytes/2)
	var memory *journal.Pool
	if o.MemoryBytes > 0 {
		var err error
		so.FS, so.Volatile, so.MaxBytes = blockfs.NewMem(), true, o.MemoryBytes
		if memory, err = journal.OpenPool(journal.PoolOptions{FS: so.FS, Dir: "journal", ChunkBytes: h.o.ChunkBytes, MaxBytes: o.MemoryBytes, Rand: h.o.Rand, Log: h.o.Log}); err != nil {
			return fmt.Errorf("memory for copies of journals: %w", err)
		}
		so.Pool = memory
	}
	s, err := dtl.NewServer(so)
	if err != nil {
		return err
	}
	d := &nodeDTL{h: h, o: *o, server: s, memory: memory, clients: map[string]*dtl.Client{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.wg.Go(d.watchOrphans)
	h.dtl = d
	return nil
}

// ServeDTL talks to another node that keeps copies of its journals here, until the
// connection ends; it closes conn. node is its id by its certificate, "" without one.
func (h *Host) ServeDTL(conn net.Conn, node string) error {
	if h.dtl == nil {
		return errors.Join(fmt.Errorf("%w: this node keeps no journals of others", ErrInvalid), conn.Close())
	}
	return h.dtl.server.Serve(conn, node)
}

// close ends all connections.
func (d *nodeDTL) close() error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	d.closed = true
	clients := d.clients
	d.clients = nil
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
	for _, c := range clients {
		c.Close()
	}
	err := d.server.Close()
	if d.memory != nil {
		err = errors.Join(err, d.memory.Close())
	}
	return err
}

// place returns the WRITE disk that has what was adopted of a vDisk, whose head has all up
// to committed. From memory it is copied there: durable before it counts.
func (d *nodeDTL) place(a dtl.Adopted, id ID, committed uint64) (*writeDisk, error) {
	if d.memory == nil || a.Pool != d.memory.ID() {
		return d.h.writeDiskOf(a.Pool), nil
	}
	r, err := journal.RecoverEpoch(d.memory, id, a.Epoch, committed+1, func(epoch uint32, _, _ uint64) bool { return epoch == a.Epoch })
	if err != nil {
		return nil, err
	}
	defer r.Abandon()
	disk := d.h.placeLog(nil)
	return disk, r.CopyTo(disk.pool, a.Epoch)
}

// client returns the connection to a node.
func (d *nodeDTL) client(node string) (*dtl.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	c := d.clients[node]
	if c == nil {
		c = dtl.NewClient(dtl.ClientOptions{Cluster: d.o.Cluster, Node: d.h.o.Node, Peer: node, Clock: d.h.o.Clock, Log: d.h.o.Log, Lost: d.o.Lost,
			Dial: func(ctx context.Context) (net.Conn, error) { return d.o.Dial(ctx, node) }})
		d.clients[node] = c
	}
	return c, nil
}

// mirrored reports whether vDisks that are opened with these settings are mirrored.
func (h *Host) mirrored(s Settings) bool { return h.dtl != nil && s.DTL != DTLModeOff }
