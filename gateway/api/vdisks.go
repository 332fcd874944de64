package api

import (
	"context"
	"math"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
)

func labelsOf(m map[string]string) Labels {
	if m == nil {
		return Labels{}
	}
	return m
}

func performanceOf(p observe.Performance) Performance {
	return Performance{
		ReadIops: p.ReadIOPS, WriteIops: p.WriteIOPS, ReadBytesPerSecond: p.ReadBytesPerSecond, WriteBytesPerSecond: p.WriteBytesPerSecond,
		ReadP50Us: p.ReadP50us, ReadP99Us: p.ReadP99us, WriteP50Us: p.WriteP50us, WriteP99Us: p.WriteP99us,
		CacheHitsPerSecond: p.CacheHits, CacheMissesPerSecond: p.CacheMisses,
	}
}

// diskView is what rows of vDisks are made with: looked up once per list.
type diskView struct {
	s        *Server
	now      time.Time
	seen     *sight
	pools    map[string]string // id -> name
	sessions map[string]int    // iqn -> sessions
}

// diskView shows vDisks to the caller of a request.
func (s *Server) diskView(ctx context.Context) diskView { return s.diskViewFor(s.sight(ctx)) }

func (s *Server) diskViewFor(seen *sight) diskView {
	v := diskView{s: s, seen: seen, now: s.clock.Now().UTC(), pools: map[string]string{}, sessions: s.sessionCounts()}
	for _, p := range s.opt.Model.VPools() {
		v.pools[p.ID] = p.Name
	}
	return v
}

func (s *Server) sessionCounts() map[string]int {
	n := map[string]int{}
	for _, i := range s.opt.Control.Sessions() {
		n[i.Target]++
	}
	return n
}

func (d diskView) row(v model.VDisk) VDisk {
	moving, handover := d.move(v), d.handover(v)
	st := d.s.opt.Control.DiskStatus(v)
	out := VDisk{
		ID: v.ID, Name: v.Name, VPool: d.pools[v.VPool], Node: d.s.opt.Control.NodeName(v.Node), Size: v.Size, ClusterSize: int64(v.ClusterSize),
		State: VDiskState(st.State), StateReason: st.Reason, Stored: st.Stats.StoredBytes, Mapped: st.Stats.MappedBytes,
		Journal: JournalUsage{Used: st.Stats.JournalBytes, Quota: st.Stats.JournalQuota},
		Epoch:   int64(st.Stats.Epoch), CommittedSeq: seq(st.Stats.CommittedSeq), LastSeq: seq(st.Stats.LastSeq),
		Performance: performanceOf(d.s.opt.Sampler.Present(v.ID).Performance), Labels: labelsOf(v.Labels), Created: v.Created, ObservedAt: d.now,
	}
	if v.State == model.StateTrashed {
		out.Stored = v.Stored
	}
	if t := st.Stats.LastCommit; !t.IsZero() {
		t = t.UTC()
		out.LastCommit = &t
	}
	if iqn, lun, ok := d.s.opt.Control.Placed(v); ok {
		out.Published = &Published{IQN: iqn, LUN: int(lun), Sessions: d.sessions[iqn]}
	}
	out.BlockSize, out.Qos = control.BlockSize(v), qosOf(v)
	out.Cache, out.Cached = cacheOf(v), st.Stats.CacheBytes
	out.History = d.s.historyPolicy(v)
	out.Dtl = d.s.dtlOf(v, st)
	out.Parent, out.Flatten, out.Move, out.Verified = d.parent(v), d.flatten(v), moving, d.verified(v)
	out.Handover = handover
	return out
}

// qosOf is nil for a vDisk without limits.
func qosOf(v model.VDisk) *Qos {
	if v.QoS == nil {
		return nil
	}
	return &Qos{Iops: v.QoS.IOPS, BytesPerSecond: v.QoS.Bytes, BurstMs: v.QoS.Burst.Milliseconds()}
}

// maxBurstMs keeps a number of a request from overflowing as a duration.
const maxBurstMs = math.MaxInt64 / int64(time.Millisecond)

// SetVDiskQos limits what initiators do to a vDisk.
func (s *Server) SetVDiskQos(ctx context.Context, r SetVDiskQosRequestObject) (SetVDiskQosResponseObject, error) {
	b := r.Body
	burst := time.Duration(max(min(b.BurstMs, maxBurstMs), -maxBurstMs)) * time.Millisecond
	v, err := s.opt.Control.SetQoS(ctx, r.VDisk, model.QoS{IOPS: b.Iops, Bytes: b.BytesPerSecond, Burst: burst})
	if err != nil {
		return nil, err
	}
	return SetVDiskQos200JSONResponse(s.diskView(ctx).row(v)), nil
}

func cacheOf(v model.VDisk) CachePolicy {
	p := CachePolicy{Mode: CachePolicyModeOnRead}
	if v.Cache != nil {
		p.Quota = v.Cache.Quota
		if v.Cache.Mode != "" {
			p.Mode = CachePolicyMode(v.Cache.Mode)
		}
	}
	return p
}

// SetVDiskCache says what the read cache keeps of a vDisk.
func (s *Server) SetVDiskCache(ctx context.Context, r SetVDiskCacheRequestObject) (SetVDiskCacheResponseObject, error) {
	v, err := s.opt.Control.SetCache(ctx, r.VDisk, model.CachePolicy{Mode: model.CacheMode(r.Body.Mode), Quota: r.Body.Quota})
	if err != nil {
		return nil, err
	}
	return SetVDiskCache200JSONResponse(s.diskView(ctx).row(v)), nil
}

// seq fits a sequence number into the API's integer.
func seq(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// diskOrders are by the record where that says it: a page of a list of many is of those whose
// condition is asked for, not all.
var diskOrders = map[string]func(diskOrder) model.Keys{
	"name":    func(o diskOrder) model.Keys { return model.Keys{Text: o.v.Name, ID: o.v.ID} },
	"created": func(o diskOrder) model.Keys { return model.Keys{Number: unix(o.v.Created), ID: o.v.ID} },
	"size":    func(o diskOrder) model.Keys { return model.Keys{Number: float64(o.v.Size), ID: o.v.ID} },
	"stored":  func(o diskOrder) model.Keys { return model.Keys{Number: float64(o.stored()), ID: o.v.ID} },
	"mapped": func(o diskOrder) model.Keys {
		return model.Keys{Number: float64(o.status().Stats.MappedBytes), ID: o.v.ID}
	},
	"state": func(o diskOrder) model.Keys { return model.Keys{Text: string(o.state()), ID: o.v.ID} },
	"vpool": func(o diskOrder) model.Keys {
		return model.Keys{Text: o.view.pools[o.v.VPool] + "\x00" + o.v.Name, ID: o.v.ID}
	},
	"readIops":  func(o diskOrder) model.Keys { return model.Keys{Number: o.performance().ReadIOPS, ID: o.v.ID} },
	"writeIops": func(o diskOrder) model.Keys { return model.Keys{Number: o.performance().WriteIOPS, ID: o.v.ID} },
	"iops": func(o diskOrder) model.Keys {
		p := o.performance()
		return model.Keys{Number: p.ReadIOPS + p.WriteIOPS, ID: o.v.ID}
	},
	"latency": func(o diskOrder) model.Keys {
		p := o.performance()
		return model.Keys{Number: max(p.ReadP99us, p.WriteP99us), ID: o.v.ID}
	},
}

// diskOrder is a vDisk as a list is ordered by it.
type diskOrder struct {
	view *diskView
	v    *model.VDisk
}

func (o diskOrder) status() control.DiskStatus { return o.view.s.opt.Control.DiskStatus(*o.v) }

func (o diskOrder) stored() int64 {
	if o.v.State == model.StateTrashed {
		return o.v.Stored
	}
	return o.status().Stats.StoredBytes
}

func (o diskOrder) state() VDiskState {
	return VDiskState(o.view.s.opt.Control.DiskCondition(*o.v).State)
}

// dtl is empty for one that is not open here.
func (o diskOrder) dtl() DtlState {
	st := o.view.s.opt.Control.DiskCondition(*o.v)
	if !st.Open {
		return ""
	}
	return DtlState(o.view.s.opt.Control.DTLStatus(*o.v, st).Stats.State)
}

func (o diskOrder) performance() observe.Performance {
	return o.view.s.opt.Sampler.Present(o.v.ID).Performance
}

// poolFilter returns the id of the vPool that a list is of; empty: of all.
func (s *Server) poolFilter(ctx context.Context, ref *string) (string, error) {
	if ref == nil || *ref == "" {
		return "", nil
	}
	p, err := s.opt.Control.FindVPoolAmong(*ref, s.sight(ctx).vpool)
	return p.ID, err
}

// ListVDisks lists vDisks.
func (s *Server) ListVDisks(ctx context.Context, r ListVDisksRequestObject) (ListVDisksResponseObject, error) {
	name, desc, keys, err := order(r.Params.Sort, diskOrders)
	if err != nil {
		return nil, err
	}
	pool, err := s.poolFilter(ctx, r.Params.VPool)
	if err != nil {
		return nil, err
	}
	if r.Params.State != nil && !r.Params.State.Valid() {
		return nil, refuseField("state", "openapi.yaml lists the states", "there is no state %q", string(*r.Params.State))
	}
	if r.Params.Dtl != nil && !r.Params.Dtl.Valid() {
		return nil, refuseField("dtl", "use off, ok, catchup or degraded", "a DTL has no state %q", string(*r.Params.Dtl))
	}
	parent := ""
	if value(r.Params.Parent) != "" {
		up, err := s.opt.Control.FindVDiskAmong(*r.Params.Parent, s.sight(ctx).vpool)
		if err != nil {
			return nil, err
		}
		parent = up.ID
	}
	node, err := s.nodeFilter(r.Params.Node)
	if err != nil {
		return nil, err
	}
	trash := r.Params.State != nil && *r.Params.State == VDiskState(control.StateTrashed) // else it is not listed
	view := s.diskView(ctx)
	rows := s.opt.Model.VDisks(func(v model.VDisk) bool {
		return view.seen.vpool(v.VPool) && (trash || v.State != model.StateTrashed) && (pool == "" || v.VPool == pool) && (node == "" || v.Node == node) && (parent == "" || v.Parent != nil && v.Parent.VDisk == parent) && matches(r.Params.Q, v.Name, v.Labels)
	})
	found := make([]diskOrder, 0, len(rows))
	for i := range rows {
		if o := (diskOrder{&view, &rows[i]}); (r.Params.State == nil || o.state() == *r.Params.State) && (r.Params.Dtl == nil || o.dtl() == *r.Params.Dtl) {
			found = append(found, o)
		}
	}
	chosen, next, err := page(found, keys, name, desc, r.Params.Cursor, r.Params.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]VDisk, len(chosen))
	for i, o := range chosen {
		items[i] = view.row(*o.v)
	}
	return ListVDisks200JSONResponse{items, next}, nil
}

// GetVDisk shows a vDisk.
func (s *Server) GetVDisk(ctx context.Context, r GetVDiskRequestObject) (GetVDiskResponseObject, error) {
	v, err := s.opt.Control.FindVDisk(r.VDisk)
	if err != nil {
		return nil, err
	}
	row := s.diskView(ctx).row(v)
	if row.Handover == nil || v.Handover != nil { // else it was given away here, and the other node may not know of it yet
		if err := s.askOwner(ctx, v.ID); err != nil {
			return nil, err
		}
	}
	return GetVDisk200JSONResponse(row), nil
}

func newDiskOf(b *VDiskInput) control.NewDisk {
	in := control.NewDisk{Name: b.Name, VPool: b.VPool, Size: b.Size, Node: value(b.Node)}
	if b.ClusterSize != nil {
		in.ClusterSize = *b.ClusterSize
		if in.ClusterSize == 0 {
			in.ClusterSize = -1 // 0 was asked for, which is not "the vPool's"
		}
	}
	if b.Labels != nil {
		in.Labels = *b.Labels
	}
	return in
}

// CreateVDisk makes a vDisk.
func (s *Server) CreateVDisk(ctx context.Context, r CreateVDiskRequestObject) (CreateVDiskResponseObject, error) {
	in := newDiskOf(r.Body)
	var err error
	if in.VPool, err = s.poolFor(ctx, in.VPool, "vpool", auth.RoleWrite); err != nil {
		return nil, err
	}
	v, err := s.opt.Control.CreateVDisk(ctx, in)
	if err != nil {
		return nil, err
	}
	return CreateVDisk201JSONResponse(s.diskView(ctx).row(v)), nil
}

// UpdateVDisk grows, renames or relabels a vDisk.
func (s *Server) UpdateVDisk(ctx context.Context, r UpdateVDiskRequestObject) (UpdateVDiskResponseObject, error) {
	in := control.DiskPatch{Name: r.Body.Name, Size: r.Body.Size}
	if r.Body.Labels != nil {
		in.Labels = labelsOf(*r.Body.Labels)
	}
	v, err := s.opt.Control.UpdateVDisk(ctx, r.VDisk, in)
	if err != nil {
		return nil, err
	}
	return UpdateVDisk200JSONResponse(s.diskView(ctx).row(v)), nil
}

// DeleteVDisk deletes a vDisk.
func (s *Server) DeleteVDisk(ctx context.Context, r DeleteVDiskRequestObject) (DeleteVDiskResponseObject, error) {
	if err := s.opt.Control.DeleteVDisk(ctx, r.VDisk, value(r.Params.Purge)); err != nil {
		return nil, err
	}
	return DeleteVDisk204Response{}, nil
}

// CommitVDisk brings everything acknowledged to the backend.
func (s *Server) CommitVDisk(ctx context.Context, r CommitVDiskRequestObject) (CommitVDiskResponseObject, error) {
	v, st, err := s.opt.Control.Commit(ctx, r.VDisk)
	if err != nil {
		return nil, err
	}
	return CommitVDisk200JSONResponse{VDisk: v.Name, Epoch: int64(st.Epoch), CommittedSeq: seq(st.CommittedSeq), LastCommit: st.LastCommit.UTC()}, nil
}

// AcceptVDiskLoss serves a vDisk without its lost writes.
func (s *Server) AcceptVDiskLoss(ctx context.Context, r AcceptVDiskLossRequestObject) (AcceptVDiskLossResponseObject, error) {
	v, err := s.opt.Control.AcceptLoss(ctx, r.VDisk)
	if err != nil {
		return nil, err
	}
	return AcceptVDiskLoss200JSONResponse(s.diskView(ctx).row(v)), nil
}

// Bounds of a series, as in openapi.yaml.
const (
	defaultSeries = 300
	maxSeries     = 3600
)

// GetVDiskStats shows a vDisk's recent performance.
func (s *Server) GetVDiskStats(_ context.Context, r GetVDiskStatsRequestObject) (GetVDiskStatsResponseObject, error) {
	v, err := s.opt.Control.FindVDisk(r.VDisk)
	if err != nil {
		return nil, err
	}
	n := defaultSeries
	if r.Params.Seconds != nil {
		if n = *r.Params.Seconds; n < 1 || n > maxSeries {
			return nil, refuseField("seconds", "", "a series has 1 to %d seconds", maxSeries)
		}
	}
	out := GetVDiskStats200JSONResponse{Object: v.ID, StepMs: observe.Step.Milliseconds(), Points: []SeriesPoint{}, ObservedAt: s.clock.Now().UTC()}
	for _, p := range s.opt.Sampler.Series(v.ID, n) {
		out.Points = append(out.Points, SeriesPoint{Time: p.Time.UTC(), Performance: performanceOf(p.Performance), JournalUsed: p.JournalUsed})
	}
	return out, nil
}
