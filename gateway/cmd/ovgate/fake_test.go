package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/api"
)

// fake is a node in memory behind the generated server, for the shapes that the
// command line meets. It is no model of the product: only what the scripts need
// is refused. What it does not answer panics through the embedded nil.
type fake struct {
	api.StrictServerInterface
	mu     sync.Mutex // one request at a time
	token  string
	vpools map[string]api.VPool
	vdisks map[string]api.VDisk
	acl    map[string][]string // by target
	open   map[string]bool     // by target
	users  map[string]api.User
	tokens map[string]api.Token
}

// fakeTime is when everything happens.
var fakeTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const fakeSession = "01-2"

// newFake returns a node with the vPool default.
func newFake(token string) *fake {
	f := &fake{
		token: token, vpools: map[string]api.VPool{}, vdisks: map[string]api.VDisk{},
		acl: map[string][]string{}, open: map[string]bool{}, users: map[string]api.User{}, tokens: map[string]api.Token{},
	}
	f.addVPool("default", api.Backend{Kind: api.BackendKindLocal, Path: "/srv/default"}, nil)
	return f
}

// handler returns the HTTP side: the generated routes behind the token.
func (f *fake) handler() http.Handler {
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		var r refusal
		if !errors.As(err, &r) {
			r = refuse(http.StatusInternalServerError, "internal", "", "", err.Error(), "")
		}
		_ = c.JSON(r.status, r.body)
	}
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if c.Request().Header.Get("Authorization") != "Bearer "+f.token {
				return refuse(401, "unauthorized", "", "", "the token is not known", "")
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			return next(c)
		}
	})
	api.RegisterHandlersWithBaseURL(e, api.NewStrictHandler(f, nil), api.BasePath)
	return e
}

// refusal is an error answer.
type refusal struct {
	status int
	body   api.Error
}

func (r refusal) Error() string { return r.body.Message }

// refuse returns a refusal; empty parts are left out.
func refuse(status int, code, object, field, message, hint string) refusal {
	return refusal{status, api.Error{
		Code: code, Message: message, Object: given(object), Field: given(field), Hint: given(hint), RequestID: "req-1",
	}}
}

// page cuts items after the cursor, two at a time, so that every list of three
// has pages.
func page[T any](items []T, cursor *string) ([]T, *string) {
	const two = 2
	from := 0
	if cursor != nil {
		from, _ = strconv.Atoi(*cursor)
	}
	if from+two >= len(items) {
		return items[from:], nil
	}
	return items[from : from+two], given(strconv.Itoa(from + two))
}

// sorted returns the values of m by key.
func sorted[T any](m map[string]T) []T {
	all := []T{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, m[k])
	}
	return all
}

func (f *fake) addVPool(name string, b api.Backend, in *api.VPoolSettingsInput) api.VPool {
	v := api.VPool{
		ID: "id-" + name, Name: name, State: api.VPoolStateRunning, Backend: b, Total: 100 << 30, Free: 60 << 30,
		Settings: api.VPoolSettings{
			ClusterSize: 4 << 10, ScoSize: 16 << 20, JournalQuota: 512 << 20, CommitIntervalMs: 10_000, StallTimeoutMs: 180_000, TrashMs: 86_400_000, VerifyIntervalMs: 2_592_000_000,
			LostTail: api.LostTailPolicyOffline, Dtl: api.DtlModeSync,
		},
		Created: fakeTime, ObservedAt: fakeTime,
	}
	applySettings(&v.Settings, in)
	f.vpools[name] = v
	return v
}

func applySettings(s *api.VPoolSettings, in *api.VPoolSettingsInput) {
	if in == nil {
		return
	}
	for _, p := range []struct{ to, from *int64 }{
		{&s.ClusterSize, in.ClusterSize}, {&s.ScoSize, in.ScoSize}, {&s.JournalQuota, in.JournalQuota},
		{&s.CommitIntervalMs, in.CommitIntervalMs}, {&s.StallTimeoutMs, in.StallTimeoutMs}, {&s.HistoryMs, in.HistoryMs}, {&s.TrashMs, in.TrashMs},
	} {
		if p.from != nil {
			*p.to = *p.from
		}
	}
	if in.LostTail != nil {
		s.LostTail = *in.LostTail
	}
	if in.Dtl != nil {
		s.Dtl = *in.Dtl
	}
}

func (f *fake) CreateVPool(_ context.Context, r api.CreateVPoolRequestObject) (api.CreateVPoolResponseObject, error) {
	if r.Params.IdempotencyKey == nil {
		return nil, refuse(400, "invalid", "", "Idempotency-Key", "the key is missing", "")
	}
	if _, ok := f.vpools[r.Body.Name]; ok {
		return nil, refuse(409, "exists", "vpool "+r.Body.Name, "name", "the name is taken", "choose another name")
	}
	return api.CreateVPool201JSONResponse(f.addVPool(r.Body.Name, r.Body.Backend, r.Body.Settings)), nil
}

func (f *fake) vpool(name string) (api.VPool, error) {
	v, ok := f.vpools[name]
	if !ok {
		return v, refuse(404, "not_found", "vpool "+name, "", "there is no such vPool", "ovgate vpool list shows them")
	}
	return v, nil
}

func (f *fake) GetVPool(_ context.Context, r api.GetVPoolRequestObject) (api.GetVPoolResponseObject, error) {
	v, err := f.vpool(r.VPool)
	return api.GetVPool200JSONResponse(v), err
}

func (f *fake) ListVPools(_ context.Context, r api.ListVPoolsRequestObject) (api.ListVPoolsResponseObject, error) {
	items, next := page(sorted(f.vpools), r.Params.Cursor)
	return api.ListVPools200JSONResponse{Items: items, Next: next}, nil
}

func (f *fake) UpdateVPool(_ context.Context, r api.UpdateVPoolRequestObject) (api.UpdateVPoolResponseObject, error) {
	v, err := f.vpool(r.VPool)
	if err != nil {
		return nil, err
	}
	applySettings(&v.Settings, r.Body.Settings)
	if r.Body.Name != nil {
		delete(f.vpools, v.Name)
		v.Name = *r.Body.Name
	}
	f.vpools[v.Name] = v
	return api.UpdateVPool200JSONResponse(v), nil
}

func (f *fake) DeleteVPool(_ context.Context, r api.DeleteVPoolRequestObject) (api.DeleteVPoolResponseObject, error) {
	for _, d := range f.vdisks {
		if d.VPool == r.VPool {
			return nil, refuse(409, "in_use", "vpool "+r.VPool, "", "it has vDisks", "delete them first")
		}
	}
	delete(f.vpools, r.VPool)
	return api.DeleteVPool204Response{}, nil
}

func (f *fake) RecoverVPool(_ context.Context, r api.RecoverVPoolRequestObject) (api.RecoverVPoolResponseObject, error) {
	v := f.addVPool(r.Body.Name, r.Body.Backend, r.Body.Settings)
	state := api.VDiskStateLostTail
	if *r.Body.AcceptLoss {
		state = api.VDiskStateRunning
	}
	f.addVDisk("old", v.Name, 1<<30, nil)
	return api.RecoverVPool200JSONResponse{VPool: v, Vdisks: []api.Recovered{{
		ID: "id-old", Name: "old", Size: 1 << 30, ClusterSize: 4 << 10, Labels: api.Labels{}, Epoch: 3, LastSeq: 77,
		Time: fakeTime, State: state,
	}}}, nil
}

func (f *fake) addVDisk(name, vpool string, size int64, labels *api.Labels) api.VDisk {
	v := api.VDisk{
		ID: "id-" + name, Name: name, VPool: vpool, Node: "alpha", Size: size, ClusterSize: 4 << 10, State: api.VDiskStateRunning,
		Stored: 3 << 20, Mapped: 5 << 20, Journal: api.JournalUsage{Used: 1536 << 10, Quota: 512 << 20},
		Epoch: 1, CommittedSeq: 10, LastSeq: 12, LastCommit: &fakeTime, Labels: api.Labels{},
		Performance: api.Performance{WriteIops: 1234, WriteBytesPerSecond: 1234 * 4096, WriteP50Us: 180, WriteP99Us: 1900},
		BlockSize:   512, Cache: api.CachePolicy{Mode: api.CachePolicyModeOnRead}, Created: fakeTime, ObservedAt: fakeTime,
		Dtl: api.VDiskDtl{Mode: api.DtlModeSync, Inherited: true, Peer: "auto", State: api.DtlStateOk, Node: "node2", Since: &fakeTime},
	}
	if labels != nil {
		v.Labels = *labels
	}
	f.vdisks[name] = v
	return v
}

func (f *fake) SetVDiskDtl(_ context.Context, r api.SetVDiskDtlRequestObject) (api.SetVDiskDtlResponseObject, error) {
	v, err := f.vdisk(r.VDisk)
	if err != nil {
		return nil, err
	}
	if p := r.Body.Peer; p != nil {
		if *p == "node9" {
			return nil, refuse(404, "not_found", "vdisk "+v.Name, "peer", "there is no node \"node9\"", "ovgate node list shows the nodes of the cluster")
		}
		v.Dtl.Peer, v.Dtl.State, v.Dtl.Catchup, v.Dtl.CaughtUp, v.Dtl.LagBytes, v.Dtl.LagMs = *p, api.DtlStateCatchup, 10, 4, 8192, 12
	}
	if m := r.Body.Mode; m != nil {
		if v.Dtl.Inherited = *m == api.VDiskDtlInputModeInherit; !v.Dtl.Inherited {
			v.Dtl.Mode = api.DtlMode(*m)
		}
		if v.Dtl.Mode == api.DtlModeOff {
			v.Dtl = api.VDiskDtl{Mode: api.DtlModeOff, Peer: "auto", State: api.DtlStateOff}
		}
	}
	f.vdisks[v.Name] = v
	return api.SetVDiskDtl200JSONResponse(v), nil
}

func (f *fake) CreateVDisk(_ context.Context, r api.CreateVDiskRequestObject) (api.CreateVDiskResponseObject, error) {
	if r.Params.IdempotencyKey == nil {
		return nil, refuse(400, "invalid", "", "Idempotency-Key", "the key is missing", "")
	}
	if _, err := f.vpool(r.Body.VPool); err != nil {
		return nil, err
	}
	if r.Body.Size%4096 != 0 {
		return nil, refuse(400, "invalid", "vdisk "+r.Body.Name, "size", "the size is no multiple of the cluster size 4096", "write 10GiB, for example")
	}
	return api.CreateVDisk201JSONResponse(f.addVDisk(r.Body.Name, r.Body.VPool, r.Body.Size, r.Body.Labels)), nil
}

func (f *fake) vdisk(name string) (api.VDisk, error) {
	v, ok := f.vdisks[name]
	if !ok {
		return v, refuse(404, "not_found", "vdisk "+name, "", "there is no such vDisk", "ovgate vdisk list shows them")
	}
	return v, nil
}

func (f *fake) GetVDisk(_ context.Context, r api.GetVDiskRequestObject) (api.GetVDiskResponseObject, error) {
	v, err := f.vdisk(r.VDisk)
	return api.GetVDisk200JSONResponse(v), err
}

func (f *fake) ListVDisks(_ context.Context, r api.ListVDisksRequestObject) (api.ListVDisksResponseObject, error) {
	var all []api.VDisk
	for _, v := range sorted(f.vdisks) {
		p := r.Params
		if (p.VPool == nil || *p.VPool == v.VPool) && (p.State == nil || *p.State == v.State) && (p.Q == nil || strings.Contains(v.Name, *p.Q)) {
			all = append(all, v)
		}
	}
	if r.Params.Sort != nil && *r.Params.Sort == "-name" {
		slices.Reverse(all)
	}
	items, next := page(all, r.Params.Cursor)
	return api.ListVDisks200JSONResponse{Items: items, Next: next}, nil
}

func (f *fake) UpdateVDisk(_ context.Context, r api.UpdateVDiskRequestObject) (api.UpdateVDiskResponseObject, error) {
	v, err := f.vdisk(r.VDisk)
	if err != nil {
		return nil, err
	}
	if s := r.Body.Size; s != nil {
		if *s < v.Size {
			return nil, refuse(400, "shrink", "vdisk "+v.Name, "size", "a vDisk does not shrink", "give at least its present size")
		}
		v.Size = *s
	}
	if r.Body.Name != nil {
		delete(f.vdisks, v.Name)
		v.Name = *r.Body.Name
	}
	f.vdisks[v.Name] = v
	return api.UpdateVDisk200JSONResponse(v), nil
}

func (f *fake) DeleteVDisk(_ context.Context, r api.DeleteVDiskRequestObject) (api.DeleteVDiskResponseObject, error) {
	if v, ok := f.vdisks[r.VDisk]; ok && v.Published != nil {
		return nil, refuse(409, "in_use", "vdisk "+v.Name, "", "it is published", "unpublish it first")
	}
	delete(f.vdisks, r.VDisk)
	return api.DeleteVDisk204Response{}, nil
}

// portal is the only one.
var portal = api.Portal{Address: "127.0.0.1:3260", Group: 1}

func (f *fake) PublishVDisk(_ context.Context, r api.PublishVDiskRequestObject) (api.PublishVDiskResponseObject, error) {
	v, err := f.vdisk(r.VDisk)
	if err != nil {
		return nil, err
	}
	iqn := "iqn.2026-01.io.example:" + v.Name
	v.Published = &api.Published{IQN: iqn}
	f.vdisks[v.Name] = v
	if r.Body.Open != nil {
		f.open[iqn] = *r.Body.Open
	}
	if r.Body.Initiators != nil {
		f.acl[iqn] = append(f.acl[iqn], *r.Body.Initiators...)
	}
	secret := "first-secret"
	if *r.Body.RotateSecret {
		secret = "other-secret"
	}
	return api.PublishVDisk200JSONResponse{
		VDisk: v.Name, IQN: iqn, Portals: []api.Portal{portal}, Open: f.open[iqn], Initiators: append([]string{}, f.acl[iqn]...),
		ChapUser: v.Name, ChapSecret: secret,
		Commands: api.ConnectCommands{
			Libiscsi: "iscsi://" + v.Name + "%" + secret + "@127.0.0.1:3260/" + iqn + "/0",
			Iscsiadm: "iscsiadm one\niscsiadm two\n", Esxi: "esxcli one", Windows: "New-IscsiTargetPortal",
		},
	}, nil
}

func (f *fake) UnpublishVDisk(_ context.Context, r api.UnpublishVDiskRequestObject) (api.UnpublishVDiskResponseObject, error) {
	v, err := f.vdisk(r.VDisk)
	if err != nil {
		return nil, err
	}
	if v.Name == "busy" && !*r.Body.Force {
		return nil, refuse(409, "in_use", "vdisk busy", "", "1 initiator is signed in", "sign it out, or use --force")
	}
	v.Published = nil
	f.vdisks[v.Name] = v
	return api.UnpublishVDisk204Response{}, nil
}

func (f *fake) CommitVDisk(_ context.Context, r api.CommitVDiskRequestObject) (api.CommitVDiskResponseObject, error) {
	v, err := f.vdisk(r.VDisk)
	return api.CommitVDisk200JSONResponse{VDisk: v.Name, Epoch: v.Epoch, CommittedSeq: v.LastSeq, LastCommit: fakeTime}, err
}

func (f *fake) AcceptVDiskLoss(_ context.Context, r api.AcceptVDiskLossRequestObject) (api.AcceptVDiskLossResponseObject, error) {
	v, err := f.vdisk(r.VDisk)
	return api.AcceptVDiskLoss200JSONResponse(v), err
}

func (f *fake) target(iqn string) (api.Target, error) {
	for _, v := range f.vdisks {
		if v.Published != nil && v.Published.IQN == iqn {
			return api.Target{
				IQN: iqn, LUNs: []api.TargetLUN{{VDisk: v.Name, VDiskID: v.ID, Size: v.Size, BlockSize: 512, State: v.State}}, Portals: []api.Portal{portal},
				ACL: append([]string{}, f.acl[iqn]...), Open: f.open[iqn], ChapUser: v.Name, Created: fakeTime, Name: v.Name, AllPortals: true,
				Groups: []api.TargetGroup{{Name: "default", Any: f.open[iqn], Initiators: append([]string{}, f.acl[iqn]...), ChapUser: v.Name}},
			}, nil
		}
	}
	return api.Target{}, refuse(404, "not_found", "target "+iqn, "", "there is no such target", "")
}

func (f *fake) ListTargets(_ context.Context, r api.ListTargetsRequestObject) (api.ListTargetsResponseObject, error) {
	all := []api.Target{}
	for _, v := range sorted(f.vdisks) {
		if v.Published != nil {
			t, _ := f.target(v.Published.IQN)
			all = append(all, t)
		}
	}
	items, next := page(all, r.Params.Cursor)
	return api.ListTargets200JSONResponse{Items: items, Next: next}, nil
}

func (f *fake) GetTarget(_ context.Context, r api.GetTargetRequestObject) (api.GetTargetResponseObject, error) {
	t, err := f.target(r.IQN)
	return api.GetTarget200JSONResponse(t), err
}

func (f *fake) AddTargetInitiator(_ context.Context, r api.AddTargetInitiatorRequestObject) (api.AddTargetInitiatorResponseObject, error) {
	f.acl[r.IQN] = append(f.acl[r.IQN], r.Initiator)
	t, err := f.target(r.IQN)
	return api.AddTargetInitiator200JSONResponse(t), err
}

func (f *fake) RemoveTargetInitiator(_ context.Context, r api.RemoveTargetInitiatorRequestObject) (api.RemoveTargetInitiatorResponseObject, error) {
	f.acl[r.IQN] = slices.DeleteFunc(f.acl[r.IQN], func(s string) bool { return s == r.Initiator })
	return api.RemoveTargetInitiator204Response{}, nil
}

func (f *fake) ListISCSISessions(_ context.Context, r api.ListISCSISessionsRequestObject) (api.ListISCSISessionsResponseObject, error) {
	if r.Params.Target != nil && *r.Params.Target != "iqn.2026-01.io.example:demo" {
		return api.ListISCSISessions200JSONResponse{Items: []api.ISCSISession{}}, nil
	}
	return api.ListISCSISessions200JSONResponse{Items: []api.ISCSISession{{
		ID: fakeSession, Target: "iqn.2026-01.io.example:demo", Initiator: "iqn.1993-08.org.debian:01:\x1b[31mred", Address: "192.0.2.7:5000",
		Portal: portal.Address, Connections: 1, Since: fakeTime, State: api.ISCSISessionStateSilent,
	}}}, nil
}

func (f *fake) DropISCSISession(_ context.Context, r api.DropISCSISessionRequestObject) (api.DropISCSISessionResponseObject, error) {
	if r.Session != fakeSession {
		return nil, refuse(400, "invalid", "session "+r.Session, "session", "that is no id of a session", "")
	}
	return api.DropISCSISession204Response{}, nil
}

func (f *fake) CreateUser(_ context.Context, r api.CreateUserRequestObject) (api.CreateUserResponseObject, error) {
	if len(r.Body.Password) < 10 {
		return nil, refuse(400, "invalid", "user "+r.Body.Name, "password", "the password is too short", "use at least 10 characters")
	}
	u := api.User{Name: r.Body.Name, Role: r.Body.Role, Effective: api.Rights{Role: r.Body.Role}, Created: fakeTime}
	f.users[u.Name] = u
	return api.CreateUser201JSONResponse(u), nil
}

func (f *fake) user(name string) (api.User, error) {
	u, ok := f.users[name]
	if !ok {
		return u, refuse(404, "not_found", "user "+name, "", "there is no such user", "")
	}
	return u, nil
}

func (f *fake) GetUser(_ context.Context, r api.GetUserRequestObject) (api.GetUserResponseObject, error) {
	u, err := f.user(r.User)
	return api.GetUser200JSONResponse(u), err
}

func (f *fake) ListUsers(_ context.Context, r api.ListUsersRequestObject) (api.ListUsersResponseObject, error) {
	items, next := page(sorted(f.users), r.Params.Cursor)
	return api.ListUsers200JSONResponse{Items: items, Next: next}, nil
}

func (f *fake) UpdateUser(_ context.Context, r api.UpdateUserRequestObject) (api.UpdateUserResponseObject, error) {
	u, err := f.user(r.User)
	if err != nil {
		return nil, err
	}
	if r.Body.Password != nil && u.Name == "me" && (r.Body.CurrentPassword == nil || *r.Body.CurrentPassword != "old password") {
		return nil, refuse(403, "forbidden", "user me", "currentPassword", "the present password is wrong", "")
	}
	if r.Body.Role != nil {
		u.Role, u.Effective.Role = *r.Body.Role, *r.Body.Role
	}
	f.users[u.Name] = u
	return api.UpdateUser200JSONResponse(u), nil
}

func (f *fake) DeleteUser(_ context.Context, r api.DeleteUserRequestObject) (api.DeleteUserResponseObject, error) {
	delete(f.users, r.User)
	return api.DeleteUser204Response{}, nil
}

func (f *fake) CreateToken(_ context.Context, r api.CreateTokenRequestObject) (api.CreateTokenResponseObject, error) {
	t := api.Token{ID: fmt.Sprintf("t%d", len(f.tokens)+1), Name: r.Body.Name, User: "admin", Role: r.Body.Role, Created: fakeTime, Expires: r.Body.Expires}
	if r.Body.User != nil {
		t.User = *r.Body.User
	}
	f.tokens[t.ID] = t
	return api.CreateToken201JSONResponse{Secret: "ovgate_pat_x", Token: t}, nil
}

func (f *fake) ListTokens(_ context.Context, r api.ListTokensRequestObject) (api.ListTokensResponseObject, error) {
	items, next := page(sorted(f.tokens), r.Params.Cursor)
	return api.ListTokens200JSONResponse{Items: items, Next: next}, nil
}

func (f *fake) DeleteToken(_ context.Context, r api.DeleteTokenRequestObject) (api.DeleteTokenResponseObject, error) {
	delete(f.tokens, r.Token)
	return api.DeleteToken204Response{}, nil
}

// audited is the audit log of the fake node, the newest entry first.
var audited = []api.AuditEntry{
	{Seq: 9, Time: fakeTime, Operation: "AuditLost", Count: 3, Changes: []api.AuditChange{}},
	{Seq: 8, Time: fakeTime, Operation: "DeleteVPool", Object: "vpool gold", User: "rita", Role: "write", Address: "10.0.0.9", Status: 403, Code: "forbidden", Count: 12, Changes: []api.AuditChange{}},
	{Seq: 6, Time: fakeTime, Operation: "UpdateVDisk", Object: "vdisk demo", User: "anna", Role: "manage", Address: "10.0.0.8", Changes: []api.AuditChange{{Field: "size", Before: new("1073741824"), After: "2147483648"}}},
	{Seq: 4, Time: fakeTime, TookMs: 12, Operation: "CreateUser", Object: "user rita", User: "anna", Role: "manage", Address: "10.0.0.8", Status: 201, Changes: []api.AuditChange{{Field: "password", After: "(secret)"}, {Field: "role", After: "write"}}},
	{Seq: 2, Time: fakeTime, Operation: "SignIn", Object: "user anna", Address: "10.0.0.8", Status: 200, Changes: []api.AuditChange{}},
}

func (f *fake) ListAudit(_ context.Context, r api.ListAuditRequestObject) (api.ListAuditResponseObject, error) {
	p := r.Params
	if p.Node != nil {
		return nil, refuse(404, "not_found", "node "+*p.Node, "", "there is no such node", "ovgate node list shows the nodes")
	}
	rows := []api.AuditEntry{}
	for _, e := range audited {
		if (p.User == nil || e.User == *p.User) && (p.Since == nil || !e.Time.Before(*p.Since)) {
			rows = append(rows, e)
		}
	}
	items, next := page(rows, p.Cursor)
	if p.Limit != nil {
		items = items[:min(len(items), *p.Limit)]
	}
	return api.ListAudit200JSONResponse{Items: items, Next: next}, nil
}

// happened is the history of events of the fake cluster, the newest first.
var happened = []api.Event{
	{Seq: 12, Node: "alpha", Time: fakeTime, Code: "session.refused", Severity: api.EventSeverityWarning, Object: "target iqn.2026-01.io.ovgate:db", Text: "iqn.host from 10.0.0.7:4711 was refused: CHAP (214 times in 1m0s)", Hint: "Compare the secrets.", Fields: map[string]string{"initiator": "iqn.host"}, Count: 214, Since: new(fakeTime.Add(-time.Minute))},
	{Seq: 11, Node: "alpha", Time: fakeTime, Code: "vdisk.lost_tail", Severity: api.EventSeverityError, Object: "vdisk db", Text: "Acknowledged writes are missing, it is offline: the journal is gone", Hint: "Bring back the journal, or accept the loss.", Fields: map[string]string{"reason": "the journal is gone"}},
	{Seq: 3, Node: "beta", Time: fakeTime.Add(-24 * time.Hour), Code: "vdisk.created", Severity: api.EventSeverityInfo, Object: "vdisk db", Text: "Made, 4096 bytes", Fields: map[string]string{"bytes": "4096"}},
}

func (f *fake) ListEvents(_ context.Context, r api.ListEventsRequestObject) (api.ListEventsResponseObject, error) {
	p := r.Params
	if p.Node != nil {
		return nil, refuse(404, "not_found", "node "+*p.Node, "", "there is no such node", "ovgate node list shows the nodes")
	}
	rows := []api.Event{}
	for _, e := range happened {
		if (p.Severity == nil || *p.Severity == api.EventSeverityInfo || e.Severity != api.EventSeverityInfo) && (p.Object == nil || e.Object == *p.Object) &&
			(p.Code == nil || e.Code == *p.Code) && (p.Since == nil || !e.Time.Before(*p.Since)) {
			rows = append(rows, e)
		}
	}
	items, next := page(rows, p.Cursor)
	if p.Limit != nil {
		items = items[:min(len(items), *p.Limit)]
	}
	return api.ListEvents200JSONResponse{Items: items, Next: next, Position: new("~n1.12"), Silent: []api.SilentNode{{Node: "gamma", ObservedAt: &fakeTime, Error: "no route to host"}}}, nil
}

func (f *fake) ListEventCodes(context.Context, api.ListEventCodesRequestObject) (api.ListEventCodesResponseObject, error) {
	return api.ListEventCodes200JSONResponse{Items: []api.EventCode{
		{Code: "session.refused", Severity: api.EventSeverityWarning, Kind: "target", Text: "{initiator} from {address} was refused: {reason}", Remedy: "Compare the secrets."},
		{Code: "vdisk.created", Severity: api.EventSeverityInfo, Kind: "vdisk", Text: "Made, {bytes} bytes"},
	}}, nil
}

// members are the nodes of the fake cluster.
var members = []api.Member{
	{ID: "n1", Name: "alpha", State: api.MemberStateUp, Liveness: api.MemberLivenessAlive, LivenessMs: new(int64(90_500)), Load: &api.MemberLoad{CPU: 35, Memory: 60, Journal: 5, Vdisks: 11}, Self: true, Version: "v1.2.3", URL: "https://10.0.0.1:8443", Portals: []string{"10.0.0.1:3260", "10.1.0.1:3260"}, Vdisks: 12, JoinedAt: fakeTime, StartedAt: &fakeTime, ObservedAt: fakeTime},
	{ID: "n2", Name: "beta", State: api.MemberStateDown, Liveness: api.MemberLivenessDead, LivenessMs: new(int64(3_600_000)), Version: "v1.2.2", URL: "https://10.0.0.2:8443", Portals: []string{"10.0.0.2:3260"}, JoinedAt: fakeTime, StartedAt: &fakeTime, ObservedAt: fakeTime},
}

func (f *fake) ListNodes(context.Context, api.ListNodesRequestObject) (api.ListNodesResponseObject, error) {
	return api.ListNodes200JSONResponse{Items: members}, nil
}

func (f *fake) GetNode(_ context.Context, r api.GetNodeRequestObject) (api.GetNodeResponseObject, error) {
	for _, m := range members {
		if m.Name == r.Node {
			return api.GetNode200JSONResponse(m), nil
		}
	}
	return nil, fmt.Errorf("no node %s", r.Node)
}

func (f *fake) GetNodeMachine(_ context.Context, r api.GetNodeMachineRequestObject) (api.GetNodeMachineResponseObject, error) {
	return api.GetNodeMachine200JSONResponse{
		Node: api.Node{ID: "n1", Name: r.Node}, Hostname: "host-1", System: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0", Cpus: 8, Memory: 32 << 30, Version: "v1.2.3", Go: "go1.26",
		Health:    api.Health{State: api.HealthStateOk, Causes: []api.HealthCause{}},
		Listeners: []api.Listener{{Service: api.ListenerServiceAPI, Addresses: []string{"https://10.0.0.1:8443"}}, {Service: api.ListenerServiceIscsi, Addresses: []string{"10.0.0.1:3260", "10.1.0.1:3260"}}},
		Places: []api.MachinePlace{
			{Path: "/var/lib/ovgate", Roles: []api.MachinePlaceRoles{api.MachinePlaceRolesDB, api.MachinePlaceRolesWrite}, Limit: new(int64(4 << 30)), Used: new(int64(1 << 30)), Total: new(int64(100 << 30)), Free: new(int64(60 << 30)), Device: "vda1"},
			{Path: "/mnt/cache", Roles: []api.MachinePlaceRoles{api.MachinePlaceRolesRead}, Limit: new(int64(10 << 30)), Problem: new("its file system did not answer within 1s")},
		},
		ObservedAt: fakeTime,
	}, nil
}

func (f *fake) CheckNode(_ context.Context, r api.CheckNodeRequestObject) (api.CheckNodeResponseObject, error) {
	return api.CheckNode200JSONResponse{
		Node: api.Node{ID: "n1", Name: r.Node}, State: api.NodeCheckStateWarning, ObservedAt: fakeTime,
		Checks: []api.NodeCheckItem{
			{Code: api.NodeCheckItemCodeClock, State: api.NodeCheckStateWarning, Text: "Nothing keeps the kernel's clock", Means: "Clocks drift apart.", Fix: "Run chrony."},
			{Code: api.NodeCheckItemCodePort, Object: "node beta", State: api.NodeCheckStateOk, Text: "iSCSI: reached at 10.0.0.2:3260"},
		},
	}, nil
}

// domains are what ListDomains has.
var domains = []api.Domain{
	{
		Name: "rack1", Nodes: []api.DomainNode{{ID: "n1", Name: "alpha", State: api.MemberStateUp, Copies: true}}, Machines: []string{"storage1"}, Devices: 4, Failed: 1, Total: 4 << 40, Used: 1 << 40,
		Vdisks: 3, Copies: 2, TakenOver: 2, Waits: 1, Lost: new(int64), Quorum: true, State: api.HealthStateWarning, SurveyedAt: &fakeTime, ObservedAt: fakeTime,
		Loss: []string{"2 vDisks are taken over by nodes elsewhere, with all that was acknowledged.", "1 vDisk waits for it: the newest writes are nowhere else."},
	},
	{Nodes: []api.DomainNode{{ID: "n2", Name: "beta", State: api.MemberStateDown}}, Quorum: true, State: api.HealthStateOk, Loss: []string{"Nothing is served or kept there."}, ObservedAt: fakeTime},
}

func (f *fake) ListDomains(context.Context, api.ListDomainsRequestObject) (api.ListDomainsResponseObject, error) {
	return api.ListDomains200JSONResponse{Items: domains}, nil
}

func (f *fake) GetDomain(_ context.Context, r api.GetDomainRequestObject) (api.GetDomainResponseObject, error) {
	for _, d := range domains {
		if d.Name == strings.TrimPrefix(r.Domain, "-") {
			return api.GetDomain200JSONResponse(d), nil
		}
	}
	return nil, fmt.Errorf("no domain %s", r.Domain)
}

func (f *fake) ListDomainVDisks(_ context.Context, r api.ListDomainVDisksRequestObject) (api.ListDomainVDisksResponseObject, error) {
	out := api.ListDomainVDisks200JSONResponse{Items: []api.DomainVDisk{}}
	if r.Domain == "rack1" {
		out.Items = []api.DomainVDisk{
			{ID: "1", Name: "db", VPool: "fast", Node: "alpha", Domain: "rack1", Copy: new("beta"), CopyDomain: new(""), Fate: api.DomainVDiskFateTakenOver},
			{ID: "2", Name: "web", VPool: "fast", Node: "alpha", Domain: "rack1", Fate: api.DomainVDiskFateWaits},
		}
	}
	return out, nil
}

func (f *fake) GetNodeLayout(_ context.Context, r api.GetNodeLayoutRequestObject) (api.GetNodeLayoutResponseObject, error) {
	out := api.GetNodeLayout200JSONResponse{
		Node: api.Node{ID: "n1", Name: r.Node}, Notes: []string{"Journals stay in the data directory: every write waits for its disk."}, ObservedAt: fakeTime,
		Disks: []api.LayoutDisk{
			{Name: "sda", Size: 100 << 30, State: api.LayoutDiskStateKept, Reason: "the machine's system is on it"},
			{Name: "sdb", Size: 4 << 40, Rotational: true, State: api.LayoutDiskStatePrepare, Roles: []api.DiskRole{api.DiskRoleAlba}, Reason: "a hard disk: objects are written to it in long runs"},
		},
	}
	if r.Params.Role != nil {
		out.Disks[1].Roles, out.Disks[1].Reason, out.Disks[1].Warning = []api.DiskRole{api.DiskRoleWrite}, "it was chosen", new("a hard disk: each write waits for it")
		out.Commands, out.Config = "mkfs.xfs /dev/sdb\n", "write_disks:\n  - {dir: /srv/ovgate/sdb/write, bytes: 1073741824}\n"
	}
	return out, nil
}

// performance is what every object of the fake did.
func performance(id string, points *int, latencies *bool) api.PerformanceHistory {
	h := api.PerformanceHistory{Object: id, From: fakeTime, To: fakeTime.Add(time.Hour), StepMs: time.Hour.Milliseconds() / int64(*points), ObservedAt: fakeTime}
	for i := range 3 {
		n := float64(i)
		h.Points = append(h.Points, api.HistoryPoint{Time: fakeTime.Add(time.Duration(i) * time.Minute), Stored: 3 << 30, CPU: 10 * n, Memory: 50, Performance: api.Performance{
			ReadIops: 1234.5 * n, WriteIops: 0.25 * n, ReadBytesPerSecond: 4096 * 1234.5 * n, WriteBytesPerSecond: 1024 * n, ReadP50Us: 90 * n, ReadP99Us: 1500 * n, WriteP50Us: 200 * n, WriteP99Us: 2.5e6 * n,
			CacheHitsPerSecond: 3 * n, CacheMissesPerSecond: n,
		}})
	}
	if latencies != nil && *latencies {
		h.BucketsUs = &[]int64{0, 2, 4, 8}
		h.Points[1].Latencies = &api.Latencies{Reads: []float64{0, 30, 10}, Writes: []float64{}}
		h.Points[2].Latencies = &api.Latencies{Reads: []float64{0, 60}, Writes: []float64{0.5, 0, 0, 1}}
	}
	return h
}

func (f *fake) GetVDiskPerformance(_ context.Context, r api.GetVDiskPerformanceRequestObject) (api.GetVDiskPerformanceResponseObject, error) {
	return api.GetVDiskPerformance200JSONResponse(performance(r.VDisk, r.Params.Points, r.Params.Latencies)), nil
}

func (f *fake) GetVPoolPerformance(_ context.Context, r api.GetVPoolPerformanceRequestObject) (api.GetVPoolPerformanceResponseObject, error) {
	return api.GetVPoolPerformance200JSONResponse(performance(r.VPool+" at "+*r.Params.Node, r.Params.Points, r.Params.Latencies)), nil
}

func (f *fake) GetNodePerformance(_ context.Context, r api.GetNodePerformanceRequestObject) (api.GetNodePerformanceResponseObject, error) {
	return api.GetNodePerformance200JSONResponse(performance(r.Node, r.Params.Points, r.Params.Latencies)), nil
}

// cluster is the fake cluster; init refuses another name.
func cluster() api.ClusterStatus {
	return api.ClusterStatus{
		ID: "c1", Name: new("east"), Registry: api.ClusterStatusRegistryEtcd, Nodes: api.MemberCounts{Total: 3, Alive: 1, Dead: 1, Unknown: 1}, Gossip: new("10.0.0.1:7946"),
		CreatedAt: &fakeTime, CertificateEndsAt: &fakeTime, AuthorityEndsAt: &fakeTime, ObservedAt: fakeTime,
	}
}

func (f *fake) GetCluster(context.Context, api.GetClusterRequestObject) (api.GetClusterResponseObject, error) {
	return api.GetCluster200JSONResponse(cluster()), nil
}

func (f *fake) InitCluster(_ context.Context, r api.InitClusterRequestObject) (api.InitClusterResponseObject, error) {
	if r.Body.Name != "east" {
		return nil, refuse(409, "exists", "cluster "+r.Body.Name, "name", "the node is in cluster east", "a cluster keeps its name")
	}
	return api.InitCluster200JSONResponse(cluster()), nil
}

func (f *fake) LeaveCluster(context.Context, api.LeaveClusterRequestObject) (api.LeaveClusterResponseObject, error) {
	return nil, refuse(409, "in_use", "node alpha", "", "it owns 12 vDisks", "move or delete them first")
}

func (f *fake) Rebalance(_ context.Context, r api.RebalanceRequestObject) (api.RebalanceResponseObject, error) {
	out := api.Rebalance200JSONResponse{Items: []api.Handoff{}}
	if *r.Body.DryRun {
		out.Items = append(out.Items, api.Handoff{VDisk: "db", From: "alpha", To: "beta"}, api.Handoff{VDisk: "web", From: "alpha", To: "gamma"})
	}
	return out, nil
}

func (f *fake) RemoveNode(_ context.Context, r api.RemoveNodeRequestObject) (api.RemoveNodeResponseObject, error) {
	if r.Node == "alpha" {
		return nil, refuse(409, "in_use", "node alpha", "", "it runs", "stop it first")
	}
	return api.RemoveNode204Response{}, nil
}

func (f *fake) ListJoinTokens(context.Context, api.ListJoinTokensRequestObject) (api.ListJoinTokensResponseObject, error) {
	return api.ListJoinTokens200JSONResponse{Items: []api.JoinToken{
		{ID: "t1", State: api.JoinTokenStateUsed, Node: new("n2"), Created: fakeTime, Expires: fakeTime}, {ID: "t2", State: api.JoinTokenStateWaiting, Created: fakeTime, Expires: fakeTime},
	}}, nil
}

func (f *fake) CreateJoinToken(_ context.Context, r api.CreateJoinTokenRequestObject) (api.CreateJoinTokenResponseObject, error) {
	urls := []string{"https://127.0.0.1:8443"}
	if r.Body.Urls != nil {
		urls = *r.Body.Urls
	}
	return api.CreateJoinToken201JSONResponse{ID: "t3", Token: fmt.Sprint("ovgate-join.", *r.Body.LifeMs), Expires: fakeTime, Urls: urls}, nil
}

func (f *fake) RevokeJoinToken(context.Context, api.RevokeJoinTokenRequestObject) (api.RevokeJoinTokenResponseObject, error) {
	return api.RevokeJoinToken204Response{}, nil
}

func (f *fake) GetStatus(context.Context, api.GetStatusRequestObject) (api.GetStatusResponseObject, error) {
	return api.GetStatus200JSONResponse{
		Node: api.Node{ID: "n1", Name: "alpha"}, Version: "v1.2.3", Started: fakeTime, ObservedAt: fakeTime,
		Health: api.Health{State: api.HealthStateWarning, Causes: []api.HealthCause{{
			State: api.HealthStateWarning, Code: "lost_tail", Text: "acknowledged writes are missing", Object: "vdisk old", Hint: "ovgate vdisk accept-loss old",
		}}},
		Counts:   api.Counts{Vpools: len(f.vpools), Vdisks: len(f.vdisks)},
		Capacity: api.Capacity{Total: 100 << 30, Free: 60 << 30, Stored: 3 << 20, Mapped: 5 << 20, Provisioned: 1 << 40, JournalQuota: 1 << 30},
		Filling: []api.Filling{
			{Object: "vpool gold", What: "The backend of vPool gold", Total: 100 << 30, Free: 60 << 30, Known: true, To80Ms: new(int64(200 * 3600_000)), To100Ms: new(int64(300 * 3600_000))},
			{What: "The data directory's disk", Total: 100 << 30, Free: 90 << 30, Known: true},
		},
		Portals: []api.Portal{portal},
	}, nil
}
