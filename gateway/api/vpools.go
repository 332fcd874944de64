package api

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// poolSums are a vPool's sums over its vDisks.
type poolSums struct {
	vdisks, published, notRunning int
	provisioned, stored, mapped   int64
	trashed                       int
	trashStored                   int64
	journalUsed, journalQuota     int64
	badState                      volume.State
	dtl                           DtlCounts
}

// sums adds up the vDisks of each vPool in one pass.
func (s *Server) sums() map[string]*poolSums {
	out := map[string]*poolSums{}
	for _, v := range s.opt.Model.VDisks(nil) {
		p := out[v.VPool]
		if p == nil {
			p = &poolSums{}
			out[v.VPool] = p
		}
		d := s.opt.Control.DiskStatus(v)
		if d.State == control.StateDeleting {
			p.stored += d.Stats.StoredBytes
			continue
		}
		if d.State == control.StateTrashed {
			p.trashed, p.trashStored, p.stored = p.trashed+1, p.trashStored+v.Stored, p.stored+v.Stored
			continue
		}
		p.vdisks++
		if v.Published() {
			p.published++
		}
		if d.Open {
			p.dtl.add(s.opt.Control.DTLStatus(v, d).Stats.State)
		}
		p.provisioned += v.Size
		p.stored += d.Stats.StoredBytes
		p.mapped += d.Stats.MappedBytes
		p.journalUsed += d.Stats.JournalBytes
		p.journalQuota += d.Stats.JournalQuota
		if d.State != volume.StateRunning && d.State != control.StateElsewhere {
			p.notRunning++
			p.badState = d.State
		}
	}
	return out
}

func (c *DtlCounts) add(state volume.DTLState) {
	switch state {
	case volume.DTLOK:
		c.Ok++
	case volume.DTLCatchup:
		c.Catchup++
	case volume.DTLDegraded:
		c.Degraded++
	default:
		c.Off++
	}
}

func (s *Server) vpoolOf(v model.VPool, sum *poolSums) VPool {
	if sum == nil {
		sum = &poolSums{}
	}
	st := s.opt.Control.PoolStatus(v.ID)
	out := VPool{
		ID: v.ID, Name: v.Name, State: VPoolStateRunning, Backend: s.placeOf(v.Backend), KeyID: some(v.KeyID),
		Settings: settingsOf(v.Settings), Vdisks: sum.vdisks, Provisioned: sum.provisioned, Stored: sum.stored, Mapped: sum.mapped,
		Trashed: sum.trashed, TrashStored: sum.trashStored,
		Total: st.Usage.Total, Free: st.Usage.Free, Requests: s.requestsOf(v.ID), Created: v.Created, ObservedAt: st.Observed.UTC(),
	}
	if st.Observed.IsZero() {
		out.ObservedAt = s.clock.Now().UTC()
	}
	if v.Node != "" {
		out.Node = some(s.opt.Control.NodeName(v.Node))
	}
	switch {
	case !s.opt.Control.Reached(v):
		out.State, out.StateReason = VPoolStateElsewhere, st.Err
	case !st.Attached:
		out.State, out.StateReason = VPoolStateOffline, st.Err
	case st.Err != "":
		out.State, out.StateReason = VPoolStateDegraded, st.Err
	case sum.notRunning == 1:
		out.State, out.StateReason = VPoolStateDegraded, "a vDisk is "+string(sum.badState)
	case sum.notRunning > 1:
		out.State, out.StateReason = VPoolStateDegraded, "several vDisks are not running"
	}
	return out
}

// placeOf says where a vPool keeps its objects.
func (s *Server) placeOf(b model.Backend) Backend {
	out := Backend{Kind: BackendKind(b.Kind), Path: b.Path, Preset: b.Preset}
	if r, ok := s.opt.Model.Remote(b.Store); ok {
		out.Store = r.Name
	}
	return out
}

func settingsOf(s model.PoolSettings) VPoolSettings {
	out := VPoolSettings{
		ClusterSize: int64(s.ClusterSize), ScoSize: s.SCOSize, JournalQuota: s.JournalQuota,
		CommitIntervalMs: s.CommitInterval.Milliseconds(), StallTimeoutMs: s.StallTimeout.Milliseconds(), HistoryMs: s.History.Milliseconds(),
		TrashMs: s.TrashTime().Milliseconds(), OversubscriptionPercent: s.Oversubscription, VerifyIntervalMs: s.VerifyEvery().Milliseconds(), LostTail: LostTailPolicyOffline, Dtl: DtlMode(s.DTLMode()),
	}
	if s.AcceptLostTail {
		out.LostTail = LostTailPolicyAccept
	}
	return out
}

// patchOf reads settings to set. Milliseconds beyond a duration's range are
// clamped; the range check then refuses them.
func patchOf(in *VPoolSettingsInput) (control.SettingsPatch, error) {
	if in == nil {
		return control.SettingsPatch{}, nil
	}
	p := control.SettingsPatch{
		ClusterSize: in.ClusterSize, SCOSize: in.ScoSize, JournalQuota: in.JournalQuota,
		CommitInterval: millis(in.CommitIntervalMs), StallTimeout: millis(in.StallTimeoutMs), History: millis(in.HistoryMs),
		Trash: millis(in.TrashMs), Oversubscription: in.OversubscriptionPercent, VerifyInterval: millis(in.VerifyIntervalMs),
	}
	if in.Dtl != nil {
		p.DTL = new(model.DTLMode(*in.Dtl))
	}
	if in.LostTail != nil {
		if !in.LostTail.Valid() {
			return p, refuseField("settings.lostTail", "use offline or accept", "lostTail %q is not known", string(*in.LostTail))
		}
		accept := *in.LostTail == LostTailPolicyAccept
		p.AcceptLostTail = &accept
	}
	return p, nil
}

func millis(ms *int64) *time.Duration {
	if ms == nil {
		return nil
	}
	const long = 10_000 * 24 * time.Hour // above every range
	d := long
	if *ms < long.Milliseconds() {
		d = time.Duration(max(*ms, -1)) * time.Millisecond
	}
	return &d
}

var poolOrders = map[string]func(VPool) model.Keys{
	"name":        func(v VPool) model.Keys { return model.Keys{Text: v.Name, ID: v.ID} },
	"created":     func(v VPool) model.Keys { return model.Keys{Number: unix(v.Created), ID: v.ID} },
	"stored":      func(v VPool) model.Keys { return model.Keys{Number: float64(v.Stored), ID: v.ID} },
	"provisioned": func(v VPool) model.Keys { return model.Keys{Number: float64(v.Provisioned), ID: v.ID} },
}

func unix(t time.Time) float64 { return float64(t.UnixMicro()) }

// ListVPools lists vPools.
func (s *Server) ListVPools(ctx context.Context, r ListVPoolsRequestObject) (ListVPoolsResponseObject, error) {
	name, desc, keys, err := order(r.Params.Sort, poolOrders)
	if err != nil {
		return nil, err
	}
	sums, seen := s.sums(), s.sight(ctx)
	var rows []VPool
	for _, v := range s.opt.Model.VPools() {
		if v.State != model.StateDeleting && seen.vpool(v.ID) && matches(r.Params.Q, v.Name, nil) {
			rows = append(rows, s.vpoolOf(v, sums[v.ID]))
		}
	}
	items, next, err := page(rows, keys, name, desc, r.Params.Cursor, r.Params.Limit)
	return ListVPools200JSONResponse{items, next}, err
}

// GetVPool shows a vPool.
func (s *Server) GetVPool(_ context.Context, r GetVPoolRequestObject) (GetVPoolResponseObject, error) {
	v, err := s.opt.Control.FindVPool(r.VPool)
	if err != nil {
		return nil, err
	}
	return GetVPool200JSONResponse(s.vpoolOf(v, s.sums()[v.ID])), nil
}

func newPool(name string, b Backend, in *VPoolSettingsInput) (control.NewPool, error) {
	patch, err := patchOf(in)
	return control.NewPool{Name: name, Backend: model.Backend{Kind: string(b.Kind), Path: b.Path, Preset: b.Preset, Store: b.Store}, Settings: patch}, err
}

// CreateVPool makes a vPool.
func (s *Server) CreateVPool(ctx context.Context, r CreateVPoolRequestObject) (CreateVPoolResponseObject, error) {
	in, err := newPool(r.Body.Name, r.Body.Backend, r.Body.Settings)
	if err != nil {
		return nil, err
	}
	in.Encrypted = value(r.Body.Encrypt)
	v, err := s.opt.Control.CreateVPool(ctx, in)
	if err != nil {
		return nil, err
	}
	return CreateVPool201JSONResponse(s.vpoolOf(v, nil)), nil
}

// RecoverVPool registers what a backend holds.
func (s *Server) RecoverVPool(ctx context.Context, r RecoverVPoolRequestObject) (RecoverVPoolResponseObject, error) {
	in, err := newPool(r.Body.Name, r.Body.Backend, r.Body.Settings)
	if err != nil {
		return nil, err
	}
	in.Key = value(r.Body.Key)
	rec, err := s.opt.Control.RecoverVPool(ctx, in, r.Body.AcceptLoss != nil && *r.Body.AcceptLoss)
	if err != nil {
		return nil, err
	}
	out := RecoverVPool200JSONResponse{VPool: s.vpoolOf(rec.VPool, s.sums()[rec.VPool.ID]), Vdisks: []Recovered{}}
	for _, d := range rec.VDisks {
		v, ok := s.opt.Model.VDisk(d.Record.ID)
		if !ok {
			v = d.Record
		}
		out.Vdisks = append(out.Vdisks, Recovered{
			ID: v.ID, Name: v.Name, Size: d.Size, ClusterSize: int64(d.ClusterSize), Labels: labelsOf(d.Labels),
			Epoch: int64(d.Epoch), LastSeq: int64(d.LastSeq), Time: d.Time.UTC(), Clean: d.Clean, Known: d.Known,
			State: VDiskState(s.opt.Control.DiskStatus(v).State),
		})
	}
	return out, nil
}

// UpdateVPool renames a vPool or changes its settings.
func (s *Server) UpdateVPool(ctx context.Context, r UpdateVPoolRequestObject) (UpdateVPoolResponseObject, error) {
	patch, err := patchOf(r.Body.Settings)
	if err != nil {
		return nil, err
	}
	v, err := s.opt.Control.UpdateVPool(ctx, r.VPool, r.Body.Name, patch)
	if err != nil {
		return nil, err
	}
	return UpdateVPool200JSONResponse(s.vpoolOf(v, s.sums()[v.ID])), nil
}

// DeleteVPool deletes an empty vPool.
func (s *Server) DeleteVPool(ctx context.Context, r DeleteVPoolRequestObject) (DeleteVPoolResponseObject, error) {
	if err := s.opt.Control.DeleteVPool(ctx, r.VPool); err != nil {
		return nil, err
	}
	return DeleteVPool204Response{}, nil
}
