package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/gateway/alba"
	"github.com/openvstorage/ovgate/gateway/asdnode"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/task"
)

// albaCauses maps errors of the object store to answers; first match wins.
var albaCauses = []struct {
	is     error
	status int
	code   string
	hint   string
}{
	{manager.ErrUnsafe, http.StatusConflict, "unsafe", ""},
	{manager.ErrForeign, http.StatusConflict, string(control.CodeInUse), "use another device"},
	{manager.ErrNotFound, http.StatusNotFound, string(control.CodeNotFound), ""},
	{manager.ErrExists, http.StatusConflict, string(control.CodeExists), ""},
	{manager.ErrInUse, http.StatusConflict, string(control.CodeInUse), ""},
	{manager.ErrState, http.StatusConflict, string(control.CodeInUse), ""},
	{manager.ErrInvalid, http.StatusBadRequest, string(control.CodeInvalid), ""},
	{preset.ErrInvalid, http.StatusBadRequest, string(control.CodeInvalid), ""},
	{fragment.ErrInvalid, http.StatusBadRequest, string(control.CodeInvalid), ""},
	{asdnode.ErrUnfit, http.StatusBadRequest, string(control.CodeInvalid), "use an empty directory, or one that is a device already"},
	{syscall.ENAMETOOLONG, http.StatusBadRequest, string(control.CodeInvalid), "name another directory"},
	{syscall.ENOTDIR, http.StatusBadRequest, string(control.CodeInvalid), "name another directory"},
	{asdnode.ErrInUse, http.StatusConflict, string(control.CodeInUse), ""},
	{maintenance.ErrRunning, http.StatusConflict, string(control.CodeInUse), "wait until it ends: ovgate task list"},
	{osd.ErrAuth, http.StatusBadRequest, string(control.CodeInvalid), "give the access key of that ASD: its directory has it in access.key"},
	{osd.ErrIdentity, http.StatusConflict, string(control.CodeInUse), "another device answers there; correct the address or the directory"},
	{alba.ErrNoDisk, http.StatusConflict, "no_light", ""},
	{disk.ErrNoLED, http.StatusConflict, "no_light", ""},
	{alba.ErrManyKeys, http.StatusConflict, string(control.CodeInUse), ""},
	{alba.ErrClosed, http.StatusServiceUnavailable, string(control.CodeStopping), ""},
}

// albaError gives an error of the object store its answer. What is not known is
// a device or a disk that does not work.
func albaError(object string, err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "alba: ")
	for _, c := range albaCauses {
		if errors.Is(err, c.is) {
			return refuse(c.status, c.code, object, c.hint, "%s", text)
		}
	}
	return refuse(http.StatusServiceUnavailable, string(control.CodeBackend), object, "check the device, then try again", "%s", text)
}

// GetAlba tells the state of the object store.
func (s *Server) GetAlba(ctx context.Context, _ GetAlbaRequestObject) (GetAlbaResponseObject, error) {
	t, err := s.opt.Alba.Status(ctx)
	if err != nil {
		return nil, albaError("", err)
	}
	out := Alba{
		Made: t.Made, Cluster: t.Cluster, Safety: t.Sentence(), Osds: t.OSDs, Failed: t.Failed, Total: t.Total, Free: t.Free,
		Objects: t.Safety.Objects, Bytes: t.Safety.Bytes, Stored: t.Safety.Stored, Repair: t.Safety.Repair, Survives: map[string]int64{}, Policies: t.Safety.Policies, Events: []AlbaEvent{},
	}
	for n, objects := range t.Safety.Tolerates {
		out.Survives[strconv.Itoa(n)] = objects
	}
	if out.Policies == nil {
		out.Policies = map[string]int64{}
	}
	if least, ok := t.Safety.Least(); ok {
		out.Tolerates = &least
	}
	if n, ok := s.opt.Model.Node(t.Maintainer); ok {
		out.Maintainer = &n.Name
	}
	if !t.Safety.At.IsZero() {
		out.SurveyedAt = new(t.Safety.At.UTC())
	}
	for _, e := range t.Events {
		ev := AlbaEvent{At: e.At, Level: AlbaEventLevelInfo, Message: e.Message}
		switch {
		case e.Level >= slog.LevelError:
			ev.Level = AlbaEventLevelError
		case e.Level >= slog.LevelWarn:
			ev.Level = AlbaEventLevelWarning
		}
		if e.OSD != 0 {
			ev.Osd = new(int64(e.OSD))
		}
		out.Events = append(out.Events, ev)
	}
	return GetAlba200JSONResponse(out), nil
}

// SurveyAlba begins to look at every object.
func (s *Server) SurveyAlba(ctx context.Context, _ SurveyAlbaRequestObject) (SurveyAlbaResponseObject, error) {
	if err := s.opt.Alba.Survey(ctx); err != nil {
		return nil, albaError("", err)
	}
	return SurveyAlba202Response{}, nil
}

// RecoverAlba begins to rebuild records of namespaces from the devices.
func (s *Server) RecoverAlba(ctx context.Context, r RecoverAlbaRequestObject) (RecoverAlbaResponseObject, error) {
	if err := s.opt.Alba.Recover(ctx, value(r.Body.Namespace), value(r.Body.Force)); err != nil {
		return nil, albaError("", err)
	}
	return RecoverAlba202Response{}, nil
}

// RotateAlbaKey draws a new wrapping key.
func (s *Server) RotateAlbaKey(ctx context.Context, _ RotateAlbaKeyRequestObject) (RotateAlbaKeyResponseObject, error) {
	id, keys, err := s.opt.Alba.RotateKey(ctx)
	if err != nil {
		return nil, albaError("", err)
	}
	return RotateAlbaKey200JSONResponse{ID: id, DataKeys: keys}, nil
}

func (s *Server) osdOf(o alba.OSD) OSD {
	problem := o.Broken()
	on, _ := s.opt.Model.Node(o.Node)
	if on.ID != "" {
		o.Node = on.Name
	}
	out := OSD{
		Number: int64(o.Number), UUID: o.UUID, State: OSDState(o.State), Kind: OSDKind(o.Kind), Node: o.Node,
		Domain: some(o.Domain), Directory: some(o.Directory), Address: some(o.Address), Fingerprint: some(o.Fingerprint), Working: problem == "", Problem: some(problem),
		Total: o.Seen.Total, Used: o.Seen.Used, Free: o.Seen.Free, Full: o.Seen.Full, Fragments: o.Fragments,
		ClaimedAt: o.Claimed.UTC(), ObservedAt: o.Seen.At.UTC(),
	}
	if o.Replaces != 0 {
		out.Replaces = new(int64(o.Replaces))
	}
	if o.ReplacedBy != 0 {
		out.ReplacedBy = new(int64(o.ReplacedBy))
	}
	micros := func(d time.Duration) *int64 {
		if d == 0 {
			return nil
		}
		us := d.Microseconds()
		return &us
	}
	out.SmallReadUs, out.LargeReadUs = micros(o.SmallRead), micros(o.LargeRead)
	if d := o.Disk; d != nil {
		out.Disk = &OSDDisk{
			Path: d.Path, Model: some(d.Model), Serial: some(d.Serial), Healthy: d.Healthy, Temperature: d.Temperature,
			Problem: some(d.Problem), ObservedAt: d.At.UTC(),
		}
	}
	return out
}

func osdObject(n int64) string { return fmt.Sprintf("osd %d", n) }

// osdNumber reads the number in a path; one that cannot be is not found.
func osdNumber(n int64) (uint32, error) {
	if n < 1 || n > math.MaxUint32 {
		return 0, albaError(osdObject(n), fmt.Errorf("device %d: %w", n, manager.ErrNotFound))
	}
	return uint32(n), nil
}

// ListOSDs lists the devices.
func (s *Server) ListOSDs(ctx context.Context, r ListOSDsRequestObject) (ListOSDsResponseObject, error) {
	all, err := s.opt.Alba.OSDs(ctx)
	if err != nil {
		return nil, albaError("", err)
	}
	node := value(r.Params.Node)
	var rows []OSD
	for _, o := range all {
		if row := s.osdOf(o); (node == "" || o.Node == node || row.Node == node) && matches(r.Params.Q, fmt.Sprintf("%d %s %s %s", row.Number, row.Node, row.UUID, o.Directory+o.Address), nil) {
			rows = append(rows, row)
		}
	}
	keys := func(o OSD) model.Keys { return model.Keys{Number: float64(o.Number), ID: o.UUID} }
	items, next, err := page(rows, keys, "number", false, r.Params.Cursor, r.Params.Limit)
	return ListOSDs200JSONResponse{items, next}, err
}

// ListDisks lists the disks of the node.
func (s *Server) ListDisks(ctx context.Context, r ListDisksRequestObject) (ListDisksResponseObject, error) {
	all, err := s.opt.Alba.Disks(ctx)
	if err != nil {
		return nil, albaError("disks", err)
	}
	osds, err := s.opt.Alba.OSDs(ctx)
	if err != nil {
		return nil, albaError("", err)
	}
	var rows []Disk
	for _, v := range all {
		if !matches(r.Params.Q, strings.Join([]string{v.Path, v.Model, v.Serial, v.WWN, v.Holds}, " "), nil) {
			continue
		}
		row := Disk{
			Name: v.Name, Path: v.Path, Link: some(v.Link), Size: v.Size, Model: some(v.Model), Serial: some(v.Serial), Wwn: some(v.WWN),
			Rotational: v.Rotational, Holds: v.Holds, Usable: v.Usable, UUID: some(v.UUID),
		}
		for _, o := range osds {
			if o.UUID == v.UUID {
				row.Osd = new(int64(o.Number))
			}
		}
		rows = append(rows, row)
	}
	keys := func(d Disk) model.Keys { return model.Keys{Text: d.Name, ID: d.Name} }
	items, next, err := page(rows, keys, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListDisks200JSONResponse{items, next}, err
}

// LocateOSD switches the light of a device's disk.
func (s *Server) LocateOSD(ctx context.Context, r LocateOSDRequestObject) (LocateOSDResponseObject, error) {
	n, err := osdNumber(r.Osd)
	if err != nil {
		return nil, err
	}
	if err := s.opt.Alba.Locate(ctx, n, r.Body.On); err != nil {
		return nil, albaError(osdObject(r.Osd), err)
	}
	return LocateOSD204Response{}, nil
}

// GetOSD answers a device.
func (s *Server) GetOSD(ctx context.Context, r GetOSDRequestObject) (GetOSDResponseObject, error) {
	n, err := osdNumber(r.Osd)
	if err != nil {
		return nil, err
	}
	o, err := s.opt.Alba.OSD(ctx, n)
	if err != nil {
		return nil, albaError(osdObject(r.Osd), err)
	}
	return GetOSD200JSONResponse(s.osdOf(o)), nil
}

// ClaimOSD makes a device part of the object store.
func (s *Server) ClaimOSD(ctx context.Context, r ClaimOSDRequestObject) (ClaimOSDResponseObject, error) {
	b := r.Body
	o, err := s.opt.Alba.Claim(ctx, claimOf(b))
	if err != nil {
		return nil, albaError("osd "+clip(value(b.Directory)+value(b.Address)), err)
	}
	return ClaimOSD201JSONResponse(s.osdOf(o)), nil
}

func claimOf(b *OSDInput) alba.Claim {
	return alba.Claim{
		Directory: value(b.Directory), Capacity: value(b.Capacity), Address: value(b.Address), Fingerprint: value(b.Fingerprint),
		AccessKey: value(b.AccessKey), Node: value(b.Node), Domain: value(b.Domain),
	}
}

// ReplaceOSD claims a device in the place of another.
func (s *Server) ReplaceOSD(ctx context.Context, r ReplaceOSDRequestObject) (ReplaceOSDResponseObject, error) {
	n, err := osdNumber(r.Osd)
	if err != nil {
		return nil, err
	}
	o, err := s.opt.Alba.Replace(ctx, n, claimOf(r.Body))
	if err != nil {
		return nil, albaError(osdObject(r.Osd), err)
	}
	return ReplaceOSD202JSONResponse(s.osdOf(o)), nil
}

// MoveOSD changes where a device is reached.
func (s *Server) MoveOSD(ctx context.Context, r MoveOSDRequestObject) (MoveOSDResponseObject, error) {
	n, err := osdNumber(r.Osd)
	if err != nil {
		return nil, err
	}
	var o alba.OSD
	if r.Body.Domain != nil {
		if r.Body.Address != nil || r.Body.Directory != nil {
			return nil, refuseField("domain", "send two requests", "the domain is changed by itself")
		}
		o, err = s.opt.Alba.SetDomain(ctx, n, *r.Body.Domain)
	} else {
		o, err = s.opt.Alba.Move(ctx, n, value(r.Body.Address), value(r.Body.Directory))
	}
	if err != nil {
		return nil, albaError(osdObject(r.Osd), err)
	}
	return MoveOSD200JSONResponse(s.osdOf(o)), nil
}

// DecommissionOSD begins to empty a device.
func (s *Server) DecommissionOSD(ctx context.Context, r DecommissionOSDRequestObject) (DecommissionOSDResponseObject, error) {
	n, err := osdNumber(r.Osd)
	if err != nil {
		return nil, err
	}
	o, err := s.opt.Alba.Decommission(ctx, n)
	if err != nil {
		return nil, albaError(osdObject(r.Osd), err)
	}
	return DecommissionOSD200JSONResponse(s.osdOf(o)), nil
}

// PurgeOSD gives up a device.
func (s *Server) PurgeOSD(ctx context.Context, r PurgeOSDRequestObject) (PurgeOSDResponseObject, error) {
	n, err := osdNumber(r.Osd)
	if err != nil {
		return nil, err
	}
	_, names, err := s.opt.Alba.Purge(ctx, n, value(r.Body.AcceptLoss))
	if errors.Is(err, manager.ErrUnsafe) {
		return nil, refuse(http.StatusConflict, "unsafe", osdObject(r.Osd), "bring the device back, or accept the loss", "%v; among them %s", err, strings.Join(names, ", "))
	}
	if err != nil {
		return nil, albaError(osdObject(r.Osd), err)
	}
	return PurgeOSD204Response{}, nil
}

// VerifyOSD begins to verify a device.
func (s *Server) VerifyOSD(ctx context.Context, r VerifyOSDRequestObject) (VerifyOSDResponseObject, error) {
	n, err := osdNumber(r.Osd)
	if err != nil {
		return nil, err
	}
	if err := s.opt.Alba.Verify(ctx, n); err != nil {
		return nil, albaError(osdObject(r.Osd), err)
	}
	return VerifyOSD202Response{}, nil
}

func presetOf(p alba.Preset) Preset {
	pieces, _ := p.PieceSize() // it was validated
	out := Preset{
		Name: p.Name, Policies: []string{}, Osds: []int64{}, FragmentSize: int64(p.FragmentBytes), PieceSize: int64(pieces.Bytes()), Compression: p.Compression.String(), Encrypted: p.KeyID != "", Spread: PresetSpread(p.Spread.String()),
		Default: p.Default, Automatic: p.Automatic, Redundant: p.Redundant, Now: p.Now, Explain: p.Explain + p.Problem,
	}
	for _, q := range p.Policies {
		out.Policies = append(out.Policies, strings.Trim(q.String(), "()"))
	}
	for _, n := range p.OSDs {
		out.Osds = append(out.Osds, int64(n))
	}
	return out
}

func presetObject(name string) string { return "preset " + clip(name) }

func parsePolicies(in []string) ([]preset.Policy, error) {
	var out []preset.Policy
	for _, text := range in {
		p, err := preset.ParsePolicy(text)
		if err != nil {
			return nil, refuseField("policies", "write k,m,c,x: data and parity fragments, how many to wait for, how many on a node", "%v", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// ListPresets lists the presets.
func (s *Server) ListPresets(ctx context.Context, r ListPresetsRequestObject) (ListPresetsResponseObject, error) {
	all, err := s.opt.Alba.Presets(ctx)
	if err != nil {
		return nil, albaError("", err)
	}
	var rows []Preset
	for _, p := range all {
		if matches(r.Params.Q, p.Name, nil) {
			rows = append(rows, presetOf(p))
		}
	}
	keys := func(p Preset) model.Keys { return model.Keys{Text: p.Name, ID: p.Name} }
	items, next, err := page(rows, keys, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListPresets200JSONResponse{items, next}, err
}

// GetPreset answers a preset.
func (s *Server) GetPreset(ctx context.Context, r GetPresetRequestObject) (GetPresetResponseObject, error) {
	p, err := s.opt.Alba.Preset(ctx, r.Preset)
	if err != nil {
		return nil, albaError(presetObject(r.Preset), err)
	}
	return GetPreset200JSONResponse(presetOf(p)), nil
}

// CreatePreset creates a preset.
func (s *Server) CreatePreset(ctx context.Context, r CreatePresetRequestObject) (CreatePresetResponseObject, error) {
	b := r.Body
	policies, err := parsePolicies(value(b.Policies))
	if err != nil {
		return nil, err
	}
	in := alba.NewPreset{Name: b.Name, Policies: policies, Encrypt: value(b.Encrypt)}
	if c := value(b.Compression); c != "" {
		if in.Compression, err = fragment.ParseCompression(c); err != nil {
			return nil, refuseField("compression", "use none, snappy, s2, zstd or bz2", "%v", err)
		}
	}
	if in.FragmentBytes, err = fragmentSize(b.FragmentSize); err != nil {
		return nil, err
	}
	if in.PieceBytes, err = pieceSize(b.PieceSize); err != nil {
		return nil, err
	}
	if by := value(b.Spread); by != "" {
		if in.Spread, err = preset.ParseSpread(string(by)); err != nil {
			return nil, refuseField("spread", "use node or domain", "%v", err)
		}
	}
	for _, n := range value(b.Osds) {
		if n < 1 || n > math.MaxUint32 {
			return nil, refuseField("osds", "ovgate osd list shows them", "there is no device %d", n)
		}
		in.OSDs = append(in.OSDs, uint32(n))
	}
	p, err := s.opt.Alba.CreatePreset(ctx, in)
	if err != nil {
		return nil, about(presetObject(b.Name), "name", albaError(presetObject(b.Name), err))
	}
	return CreatePreset201JSONResponse(presetOf(p)), nil
}

func fragmentSize(in *int64) (int, error) {
	n := value(in)
	if in != nil && (n < preset.MinFragmentBytes || n > preset.MaxFragmentBytes || n%fragment.PieceBytes != 0) {
		return 0, refuseField("fragmentSize", "use a multiple of 64 KiB from 64 KiB to 64 MiB", "a fragment of %d bytes cannot be", n)
	}
	return int(n), nil
}

func pieceSize(in *int64) (int, error) {
	if in == nil {
		return 0, nil
	}
	size, err := fragment.ParsePieceSize(*in)
	if err != nil {
		return 0, refuseField("pieceSize", "use 4 KiB, 16 KiB or 64 KiB", "pieces of %d bytes cannot be", *in)
	}
	return size.Bytes(), nil
}

// UpdatePreset changes a preset.
func (s *Server) UpdatePreset(ctx context.Context, r UpdatePresetRequestObject) (UpdatePresetResponseObject, error) {
	b := r.Body
	if b.Default != nil && !*b.Default {
		return nil, refuseField("default", "make another preset the default", "there is always a default preset")
	}
	policies, err := parsePolicies(value(b.Policies))
	if err != nil {
		return nil, err
	}
	size, err := fragmentSize(b.FragmentSize)
	if err != nil {
		return nil, err
	}
	pieces, err := pieceSize(b.PieceSize)
	if err != nil {
		return nil, err
	}
	p, err := s.opt.Alba.UpdatePreset(ctx, r.Preset, policies, size, pieces)
	if err == nil && b.Default != nil {
		if err = s.opt.Alba.SetDefaultPreset(ctx, r.Preset); err == nil {
			p, err = s.opt.Alba.Preset(ctx, r.Preset)
		}
	}
	if err != nil {
		return nil, albaError(presetObject(r.Preset), err)
	}
	return UpdatePreset200JSONResponse(presetOf(p)), nil
}

// DeletePreset deletes a preset.
func (s *Server) DeletePreset(ctx context.Context, r DeletePresetRequestObject) (DeletePresetResponseObject, error) {
	for _, v := range s.opt.Model.VPools() {
		if v.Backend.Preset == r.Preset {
			return nil, refuse(http.StatusConflict, string(control.CodeInUse), presetObject(r.Preset), "delete the vPool first", "vPool %s uses it", v.Name)
		}
	}
	if err := s.opt.Alba.DeletePreset(ctx, r.Preset); err != nil {
		return nil, albaError(presetObject(r.Preset), err)
	}
	return DeletePreset204Response{}, nil
}

// maxNamespace bounds the name of a namespace, in bytes.
const maxNamespace = 200

// ListNamespaces lists namespaces; the cursor is the last name.
func (s *Server) ListNamespaces(ctx context.Context, r ListNamespacesRequestObject) (ListNamespacesResponseObject, error) {
	limit := model.DefaultPage
	if r.Params.Limit != nil {
		if limit = *r.Params.Limit; limit < 1 || limit > model.MaxPage {
			return nil, refuseField("limit", "", "a page has 1 to %d items", model.MaxPage)
		}
	}
	for field, v := range map[string]string{"q": value(r.Params.Q), "cursor": value(r.Params.Cursor)} {
		if len(v) > maxNamespace {
			return nil, refuseField(field, "", "it has %d bytes, names of namespaces at most %d", len(v), maxNamespace)
		}
	}
	all, err := s.opt.Alba.Namespaces(ctx, value(r.Params.Q), value(r.Params.Cursor), limit)
	if err != nil {
		return nil, albaError("", err)
	}
	out := ListNamespaces200JSONResponse{Items: []Namespace{}}
	for _, n := range all {
		out.Items = append(out.Items, Namespace{ID: int64(n.ID), Name: n.Name, State: string(n.State), Preset: n.Preset, Host: n.Host})
	}
	if len(all) == limit {
		out.Next = &all[limit-1].Name
	}
	return out, nil
}

// maintenanceTask is a job of maintenance as other work is told of.
func maintenanceTask(j maintenance.Job) task.Task {
	out := task.Task{ID: j.ID, Kind: task.Kind(j.ID), What: j.What, Object: "object store", State: task.Running, Done: j.Done, Total: j.Total, Unit: j.Unit, Bytes: j.Bytes,
		Started: j.Started.UTC(), Error: j.Error}
	for prefix, of := range map[string]struct {
		kind   task.Kind
		object string
	}{"verify-": {task.VerifyDisk, "osd "}, "empty-": {task.Empty, "osd "}, "recover-": {task.Recover, "namespace "}} {
		if name, ok := strings.CutPrefix(j.ID, prefix); ok {
			out.Kind, out.Object = of.kind, of.object+name
		}
	}
	if j.ID == "reconcile" {
		out.Kind = task.Compare
	}
	switch {
	case j.Ended.IsZero():
	case j.Error != "":
		out.Ended, out.State, out.Hint = j.Ended.UTC(), task.Failed, "maintenance tries again by itself; ovgate alba status tells how safe objects are"
	default:
		out.Ended, out.State = j.Ended.UTC(), task.Done
	}
	return out
}
