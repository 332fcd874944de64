package api

import (
	"context"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
)

func (s *Server) portals() []Portal { return portalsOf(s.opt.Control.Portals()) }

func portalsOf(list []iscsi.Portal) []Portal {
	out := []Portal{}
	for _, p := range list {
		out = append(out, Portal{Address: p.Address, Group: int(p.Group)})
	}
	return out
}

// targetOf is a target as recorded; running adds what the front end knows.
func (s *Server) targetOf(t control.Target, sessions int) Target {
	out := Target{
		IQN: t.IQN, Name: t.Name, Shared: t.Shared, LUNs: []TargetLUN{}, Portals: portalsOf(s.opt.Control.TargetPortals(t)),
		AllPortals: len(t.Access.Portals) == 0, Redirect: t.Access.Redirect, Groups: []TargetGroup{}, ACL: []string{}, Sessions: sessions, Created: t.Created,
	}
	for _, l := range t.LUNs {
		out.LUNs = append(out.LUNs, TargetLUN{LUN: int(l.Number), VDisk: l.VDisk.Name, VDiskID: l.VDisk.ID, Size: l.VDisk.Size, BlockSize: control.BlockSize(l.VDisk),
			State: VDiskState(s.opt.Control.DiskStatus(l.VDisk).State), Qos: qosOf(l.VDisk)})
	}
	for _, g := range t.Access.Groups {
		out.Groups = append(out.Groups, groupOf(g))
		out.ACL = append(out.ACL, g.Initiators...)
		out.Open = out.Open || g.Any
		if g.Name == model.DefaultGroup {
			out.ChapUser = g.CHAPUser
		}
	}
	return out
}

func groupOf(g model.Group) TargetGroup {
	out := TargetGroup{
		Name: g.Name, Any: g.Any, Initiators: append([]string{}, g.Initiators...), ChapUser: g.CHAPUser, MutualUser: g.MutualUser,
		ReadOnly: g.ReadOnly, Masked: g.Masked, LUNs: []LUNMap{},
	}
	for _, m := range g.LUNs {
		out.LUNs = append(out.LUNs, LUNMap{LUN: int(m.LUN), Number: int(m.Number), ReadOnly: m.ReadOnly})
	}
	return out
}

// running is a target with sessions, statistics and reservations.
func (s *Server) running(t control.Target) Target {
	out := s.targetOf(t, 0)
	info, ok := s.opt.Control.TargetInfo(t.IQN)
	if !ok {
		return out
	}
	out.Sessions = info.Sessions
	for _, g := range info.Groups {
		for i := range out.Groups {
			if out.Groups[i].Name == g.Name {
				out.Groups[i].Sessions = g.Sessions
			}
		}
	}
	for _, l := range info.LUNs {
		for i := range out.LUNs {
			if o := &out.LUNs[i]; o.LUN == int(l.Number) {
				o.Reservation = reservationOf(l.Reservation)
				o.Stats, o.ReservedBy = new(lunStatsOf(l.Stats, iscsi.LUNStats{}, 0, o.VDisk)), l.ReservedBy
			}
		}
	}
	return out
}

func reservationOf(r *iscsi.ReservationInfo) *Reservation {
	if r == nil {
		return nil
	}
	return &Reservation{Type: r.Type, Holder: r.Holder, Registrations: r.Registrations, Persistent: r.Persistent, Generation: int64(r.Generation)}
}

// number fits a LUN of a request into what control takes; one out of range stays
// out of range there.
func number(n int) uint16 {
	if n < 0 || n > math.MaxUint16 {
		return math.MaxUint16
	}
	return uint16(n)
}

// PublishVDisk publishes a vDisk and answers how to connect.
func (s *Server) PublishVDisk(ctx context.Context, r PublishVDiskRequestObject) (PublishVDiskResponseObject, error) {
	var opt control.PublishOptions
	if b := r.Body; b != nil {
		opt = control.PublishOptions{Open: b.Open, Initiators: value(b.Initiators), Rotate: value(b.RotateSecret), Mutual: value(b.Mutual), Target: value(b.Target)}
		if b.BlockSize != nil {
			// 0 was asked for, which is not "as it is".
			if opt.BlockSize = *b.BlockSize; opt.BlockSize == 0 {
				opt.BlockSize = -1
			}
		}
		if b.LUN != nil {
			opt.LUN = new(number(*b.LUN))
		}
		if opt.Target != "" {
			var err error
			if opt.Target, err = s.targetFor(ctx, opt.Target, auth.RoleWrite); err != nil {
				return nil, err
			}
		}
	}
	if err := s.mayConnect(ctx, r.VDisk); err != nil {
		return nil, err
	}
	c, err := s.opt.Control.Publish(ctx, r.VDisk, opt)
	if err != nil {
		return nil, err
	}
	t := s.targetOf(c.Target, 0)
	return PublishVDisk200JSONResponse{
		VDisk: c.VDisk.Name, IQN: t.IQN, LUN: int(c.LUN), Portals: portalsOf(c.Portals), Open: t.Open, Initiators: t.ACL,
		ChapUser: c.Credentials.User, ChapSecret: c.Credentials.Secret,
		MutualUser: c.Credentials.MutualUser, MutualSecret: c.Credentials.MutualSecret,
		Commands: ConnectCommands{Libiscsi: c.Commands.Libiscsi, Iscsiadm: c.Commands.Iscsiadm, Esxi: c.Commands.ESXi, Windows: c.Commands.Windows},
	}, nil
}

// mayConnect refuses a caller who would be told how to sign in to a shared target that others have
// vDisks in.
func (s *Server) mayConnect(ctx context.Context, vdisk string) error {
	who := callerOf(ctx).Principal
	if who.Role.Allows(auth.RoleWrite) {
		return nil
	}
	v, err := s.opt.Control.FindVDisk(vdisk)
	if err != nil || v.Shared == nil {
		return err
	}
	t, ok := s.opt.Model.Target(v.Shared.Target)
	if !ok {
		return nil
	}
	if _, err := s.targetFor(ctx, t.IQN, auth.RoleWrite); err != nil {
		return refuse(http.StatusForbidden, "forbidden", "vdisk "+v.Name, "ask somebody with role write over everything, or withdraw it and publish it under a target of its own", "it is in a target with vDisks that are not yours to use")
	}
	return nil
}

// value is what p points to, or zero.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// UnpublishVDisk withdraws a vDisk.
func (s *Server) UnpublishVDisk(ctx context.Context, r UnpublishVDiskRequestObject) (UnpublishVDiskResponseObject, error) {
	force := r.Body != nil && value(r.Body.Force)
	if err := s.opt.Control.Unpublish(ctx, r.VDisk, force); err != nil {
		return nil, err
	}
	return UnpublishVDisk204Response{}, nil
}

// ListTargets lists targets by name.
func (s *Server) ListTargets(ctx context.Context, r ListTargetsRequestObject) (ListTargetsResponseObject, error) {
	sessions, seen := s.sessionCounts(), s.sight(ctx)
	var rows []Target
	for _, t := range s.opt.Control.Targets() {
		labels := map[string]string(nil)
		if !t.Shared {
			labels = t.LUNs[0].VDisk.Labels
		}
		if seen.target(t) && matches(r.Params.Q, t.IQN, labels) {
			rows = append(rows, s.targetOf(t, sessions[t.IQN]))
		}
	}
	items, next, err := page(rows, func(t Target) model.Keys { return model.Keys{Text: t.IQN} }, "iqn", false, r.Params.Cursor, r.Params.Limit)
	return ListTargets200JSONResponse{items, next}, err
}

// GetTarget shows a target.
func (s *Server) GetTarget(_ context.Context, r GetTargetRequestObject) (GetTargetResponseObject, error) {
	t, err := s.opt.Control.FindTarget(r.IQN)
	if err != nil {
		return nil, err
	}
	return GetTarget200JSONResponse(s.running(t)), nil
}

// CreateTarget makes a shared target.
func (s *Server) CreateTarget(ctx context.Context, r CreateTargetRequestObject) (CreateTargetResponseObject, error) {
	t, err := s.opt.Control.CreateTarget(ctx, r.Body.Name, value(r.Body.IQN), callerOf(ctx).User)
	if err != nil {
		return nil, err
	}
	return CreateTarget201JSONResponse(s.targetOf(t, 0)), nil
}

// DeleteTarget deletes a shared target.
func (s *Server) DeleteTarget(ctx context.Context, r DeleteTargetRequestObject) (DeleteTargetResponseObject, error) {
	if err := s.opt.Control.DeleteTarget(ctx, r.IQN, value(r.Params.Force)); err != nil {
		return nil, err
	}
	return DeleteTarget204Response{}, nil
}

// SetTargetPortals chooses where a target is reached.
func (s *Server) SetTargetPortals(ctx context.Context, r SetTargetPortalsRequestObject) (SetTargetPortalsResponseObject, error) {
	t, err := s.opt.Control.SetPortals(ctx, r.IQN, r.Body.Addresses, r.Body.Redirect)
	if err != nil {
		return nil, err
	}
	return SetTargetPortals200JSONResponse(s.running(t)), nil
}

// AddTargetInitiator puts an initiator in a target's group default.
func (s *Server) AddTargetInitiator(ctx context.Context, r AddTargetInitiatorRequestObject) (AddTargetInitiatorResponseObject, error) {
	t, err := s.opt.Control.AddInitiator(ctx, r.IQN, r.Initiator)
	if err != nil {
		return nil, err
	}
	return AddTargetInitiator200JSONResponse(s.running(t)), nil
}

// RemoveTargetInitiator takes an initiator out of a target's groups.
func (s *Server) RemoveTargetInitiator(ctx context.Context, r RemoveTargetInitiatorRequestObject) (RemoveTargetInitiatorResponseObject, error) {
	if _, err := s.opt.Control.RemoveInitiator(ctx, r.IQN, r.Initiator); err != nil {
		return nil, err
	}
	return RemoveTargetInitiator204Response{}, nil
}

func iscsiSessionOf(i iscsi.SessionInfo) ISCSISession {
	// A session has one connection: MaxConnections is negotiated to 1.
	return ISCSISession{ID: i.ID, Target: i.Target, Initiator: i.Initiator, Address: i.Remote, Portal: i.Local, Connections: 1, Since: i.Since.UTC(), State: sessionState(i)}
}

func sessionState(i iscsi.SessionInfo) ISCSISessionState {
	switch {
	case i.Forwarded:
		return ISCSISessionStateForwarded
	case i.Silent > 0:
		return ISCSISessionStateSilent
	case !i.Blind.IsZero():
		return ISCSISessionStateNoLUNs
	}
	return ISCSISessionStateOk
}

// ListISCSISessions lists sessions, oldest first.
func (s *Server) ListISCSISessions(ctx context.Context, r ListISCSISessionsRequestObject) (ListISCSISessionsResponseObject, error) {
	var rows []ISCSISession
	for _, i := range s.sessions(s.sight(ctx)) {
		if (r.Params.Target == nil || *r.Params.Target == i.Target) && (matches(r.Params.Q, i.Initiator, nil) || matches(r.Params.Q, i.Target, nil)) {
			rows = append(rows, iscsiSessionOf(i))
		}
	}
	keys := func(v ISCSISession) model.Keys { return model.Keys{Number: unix(v.Since), ID: v.ID} }
	items, next, err := page(rows, keys, "since", false, r.Params.Cursor, r.Params.Limit)
	return ListISCSISessions200JSONResponse{items, next}, err
}

// sessions returns the sessions that can be read.
func (s *Server) sessions(seen *sight) (out []iscsi.SessionInfo) {
	for _, i := range s.opt.Control.Sessions() {
		if s.seesSession(seen, i) {
			out = append(out, i)
		}
	}
	return out
}

// seesSession tells whether a session can be read: its target can.
func (s *Server) seesSession(seen *sight, i iscsi.SessionInfo) bool {
	if seen == nil {
		return true
	}
	t, err := s.opt.Control.FindTarget(i.Target)
	return err == nil && seen.target(t)
}

// maxSampleMs bounds the time that a request for a session watches it.
const maxSampleMs = 10_000

// GetISCSISession shows a session in full, with rates of the time that was asked for.
func (s *Server) GetISCSISession(ctx context.Context, r GetISCSISessionRequestObject) (GetISCSISessionResponseObject, error) {
	wait := value(r.Params.SampleMs)
	if wait < 0 || wait > maxSampleMs {
		return nil, refuseField("sampleMs", "", "a session is watched for 0 to %d ms", maxSampleMs)
	}
	i, err := s.opt.Control.Session(r.Session)
	if err == nil && !s.seesSession(s.sight(ctx), i) {
		i, err = s.opt.Control.Session("")
		err = about("session "+clip(r.Session), "", err)
	}
	if err != nil {
		return nil, err
	}
	from, before := i.Since, map[uint16]iscsi.LUNStats{}
	if wait > 0 {
		from = s.clock.Now()
		for _, l := range i.LUNs {
			before[l.Number] = l
		}
		if err := s.pause(ctx, time.Duration(wait)*time.Millisecond); err != nil {
			return nil, err
		}
		if i, err = s.opt.Control.Session(r.Session); err != nil {
			return nil, err
		}
	}
	now := s.clock.Now()
	out := sessionDetailOf(i)
	out.SpanMs, out.ObservedAt = now.Sub(from).Milliseconds(), now.UTC()
	names := map[uint16]string{}
	if t, err := s.opt.Control.FindTarget(i.Target); err == nil {
		for _, l := range t.LUNs {
			names[l.Number] = l.VDisk.Name
		}
	}
	for _, l := range i.LUNs {
		out.LUNs = append(out.LUNs, lunStatsOf(l, before[l.Number], now.Sub(from), names[l.Number]))
	}
	return GetISCSISession200JSONResponse(out), nil
}

// pause waits, unless the request or the node ends before.
func (s *Server) pause(ctx context.Context, d time.Duration) error {
	t := s.clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return context.Canceled
	}
}

func sessionDetailOf(i iscsi.SessionInfo) ISCSISessionDetail {
	n := i.Negotiated
	return ISCSISessionDetail{
		Session: iscsiSessionOf(i), Group: i.Group, Isid: i.ISID, Tsih: int(i.TSIH), PortalGroup: int(i.PortalGroup),
		Negotiated: Negotiated{
			HeaderDigest: n.HeaderDigest, DataDigest: n.DataDigest, MaxRecvInitiator: int64(n.MaxRecvInitiator), MaxRecvTarget: int64(n.MaxRecvTarget),
			MaxBurst: int64(n.MaxBurst), FirstBurst: int64(n.FirstBurst), InitialR2T: n.InitialR2T, ImmediateData: n.ImmediateData,
			MaxOutstandingR2T: int(n.MaxOutstandingR2T), Time2Wait: int(n.Time2Wait), Time2Retain: int(n.Time2Retain),
			ErrorRecoveryLevel: int(n.ErrorRecoveryLevel), MaxConnections: int(n.MaxConnections),
		},
		Commands: seq(i.Commands), BytesRead: seq(i.BytesRead), BytesWritten: seq(i.BytesWritten), Outstanding: i.Outstanding,
		LUNs: []LUNStats{},
	}
}

// lunStatsOf shows the totals of a LUN, and rates and latencies of what came after
// before, in span; 0 leaves the rates out.
func lunStatsOf(s, before iscsi.LUNStats, span time.Duration, vdisk string) LUNStats {
	return LUNStats{
		LUN: int(s.Number), VDisk: vdisk, Depth: s.Depth, MaxDepth: s.MaxDepth, Waiting: s.Waiting, Delayed: seq(s.Delayed), QueueFull: seq(s.Full), Aborted: seq(s.Aborted),
		Read: ioStatsOf(s.Read, before.Read, span), Write: ioStatsOf(s.Write, before.Write, span), Other: ioStatsOf(s.Other, before.Other, span),
	}
}

func ioStatsOf(s, before iscsi.IOStats, span time.Duration) IOStats {
	out := IOStats{Commands: seq(s.Commands), Bytes: seq(s.Bytes), Errors: seq(s.Errors)}
	h := s.Latency
	for i := range h.Buckets {
		h.Buckets[i] -= min(before.Latency.Buckets[i], h.Buckets[i]) // a LUN may have come anew
	}
	h.Sum -= min(before.Latency.Sum, h.Sum)
	n := h.Count()
	if n == 0 {
		return out
	}
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	out.P50Us, out.P99Us, out.MeanUs = us(h.Quantile(0.5)), us(h.Quantile(0.99)), us(h.Sum)/float64(n)
	if span > 0 {
		out.Iops = float64(n) / span.Seconds()
		out.BytesPerSecond = float64(s.Bytes-min(before.Bytes, s.Bytes)) / span.Seconds()
	}
	return out
}

// DropISCSISession ends a session.
func (s *Server) DropISCSISession(ctx context.Context, r DropISCSISessionRequestObject) (DropISCSISessionResponseObject, error) {
	if i, err := s.opt.Control.Session(r.Session); err == nil {
		if !s.seesSession(s.sight(ctx), i) {
			return DropISCSISession204Response{}, nil // for its caller there is none
		}
		if _, err := s.targetFor(ctx, i.Target, auth.RoleWrite); err != nil {
			return nil, err
		}
	}
	if err := s.opt.Control.DropSession(r.Session); err != nil {
		return nil, err
	}
	return DropISCSISession204Response{}, nil
}

// ListPortals lists the portals.
func (s *Server) ListPortals(context.Context, ListPortalsRequestObject) (ListPortalsResponseObject, error) {
	return ListPortals200JSONResponse{Items: slices.Clone(s.portals())}, nil
}
