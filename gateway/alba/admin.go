package alba

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
)

// OSD is a device with what is known of it.
type OSD struct {
	manager.OSD
	Seen      manager.Seen
	Fragments int64 // by the last survey
	// Disqualified is why this node does not write to it now; empty: it does.
	Disqualified string
	SmallRead    time.Duration // average latency of reads up to 64 KiB
	LargeRead    time.Duration
	Disk         *OSDDisk // nil: on none of this node that is known
	ReplacedBy   uint32   // number of the device that comes in its place; 0: of none
}

// OSDs returns the devices, by number. None when there is no Alba.
func (s *Service) OSDs(ctx context.Context) ([]OSD, error) {
	if !s.Made() {
		return nil, nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	recs, err := r.manager.OSDs(ctx)
	if err != nil {
		return nil, err
	}
	seen, err := r.manager.SeenAll(ctx)
	if err != nil {
		return nil, err
	}
	told, err := s.known(ctx, r)
	if err != nil {
		return nil, err
	}
	by := map[uint32]uint32{}
	for _, rec := range recs {
		if rec.Replaces != 0 {
			by[rec.Replaces] = rec.Number
		}
	}
	out := make([]OSD, len(recs))
	for i, rec := range recs {
		out[i] = OSD{OSD: rec, Seen: seen[rec.Number], Fragments: told.Safety.OSDs[rec.Number], Disk: s.diskOf(r, rec), ReplacedBy: by[rec.Number]}
		for _, v := range r.client.OSDs() {
			if v.Number == rec.Number {
				out[i].Disqualified = v.Error
				out[i].SmallRead, out[i].LargeRead = time.Duration(v.SmallReadNS), time.Duration(v.LargeReadNS)
			}
		}
	}
	return out, nil
}

// OSD returns a device by its number.
func (s *Service) OSD(ctx context.Context, number uint32) (OSD, error) {
	all, err := s.OSDs(ctx)
	if err != nil {
		return OSD{}, err
	}
	i := slices.IndexFunc(all, func(o OSD) bool { return o.Number == number })
	if i < 0 {
		return OSD{}, fmt.Errorf("device %d: %w", number, manager.ErrNotFound)
	}
	return all[i], nil
}

// Claim is what to make a device of the Alba: a directory of this node, or an ASD.
type Claim struct {
	Directory string
	Capacity  int64 // of a directory, bytes; 0: all
	Address   string
	// Fingerprint of the ASD's certificate, and its access key in hexadecimal.
	Fingerprint, AccessKey string
	Node                   string // the machine of an ASD
	Domain                 string // of that, where it is no node of the cluster: a node knows its own

	replaces uint32 // number of the device in whose place it comes; 0: of none
}

// MinCapacity is the least that a device may be given, in bytes.
const MinCapacity = 64 << 20

// check refuses what cannot be claimed.
func (c Claim) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", manager.ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case (c.Directory == "") == (c.Address == ""):
		return bad("name either a directory of the node or the address of an ASD")
	case c.Directory != "" && !filepath.IsAbs(c.Directory):
		return bad("directory %q: name it from the root, such as /mnt/disk1/ovgate", c.Directory)
	case c.Directory != "" && c.Capacity != 0 && c.Capacity < MinCapacity:
		return bad("capacity %d: give at least %d bytes, or 0 for all that the file system has", c.Capacity, int64(MinCapacity))
	case c.Directory != "" && c.Domain != "":
		return bad("domain %q: a directory of the node is in the node's: set domain in its configuration", c.Domain)
	case c.Address != "" && c.Fingerprint == "":
		return bad("give the fingerprint of the ASD's certificate: it prints it when it starts")
	}
	return nil
}

// Claim makes a device part of the Alba.
func (s *Service) Claim(ctx context.Context, c Claim) (OSD, error) {
	if err := c.check(); err != nil {
		return OSD{}, err
	}
	r, err := s.open(ctx)
	if err != nil {
		return OSD{}, err
	}
	var o manager.OSD
	if c.Directory != "" {
		o, err = s.claimDir(ctx, r, Dir{filepath.Clean(c.Directory), c.Capacity, c.replaces})
	} else {
		o, err = s.claimASD(ctx, r, c)
	}
	if err != nil {
		return OSD{}, err
	}
	s.event(maintenance.Event{Code: "osd.claimed", OSD: o.Number, Level: slog.LevelInfo, Message: fmt.Sprintf("device %d of node %s is part of the Alba", o.Number, s.NodeName(o.Node))})
	select {
	case r.claimed <- struct{}{}:
	default: // it is told already
	}
	if err := r.manager.Follow(ctx); err != nil {
		return OSD{}, err
	}
	return s.OSD(ctx, o.Number)
}

func (s *Service) claimASD(ctx context.Context, r *running, c Claim) (manager.OSD, error) {
	dev, err := s.dial(c.Address, c.Fingerprint, c.AccessKey, "")
	if err != nil {
		return manager.OSD{}, fmt.Errorf("%w: %w", manager.ErrInvalid, err)
	}
	o, err := s.claimOpen(ctx, r, dev, c)
	return o, errors.Join(err, dev.Close())
}

func (s *Service) claimOpen(ctx context.Context, r *running, dev osd.OSD, c Claim) (manager.OSD, error) {
	info, err := dev.Info(ctx)
	if err != nil {
		return manager.OSD{}, fmt.Errorf("ASD %s: %w", c.Address, err)
	}
	sealed, err := s.o.Sealer.Seal(sealID(info.ID), c.AccessKey)
	if err != nil {
		return manager.OSD{}, err
	}
	if c.Node == "" {
		c.Node = c.Address
	}
	node, domain, err := s.machine(c.Node, c.Domain)
	if err != nil {
		return manager.OSD{}, err
	}
	o, err := r.manager.Claim(ctx, dev, manager.OSD{Kind: kindASD, Node: node, Domain: domain, Address: c.Address, Fingerprint: c.Fingerprint, Access: sealed, Replaces: c.replaces})
	if err != nil {
		return o, err
	}
	return o, r.client.Refresh(ctx)
}

// Move changes where a device is reached: an ASD's address, a device's directory.
func (s *Service) Move(ctx context.Context, number uint32, address, directory string) (OSD, error) {
	r, err := s.open(ctx)
	if err != nil {
		return OSD{}, err
	}
	_, err = r.manager.Update(ctx, number, func(o *manager.OSD) error {
		switch {
		case o.Kind == kindASD && address != "" && directory == "":
			o.Address = address
		case o.Kind == kindLocal && filepath.IsAbs(directory) && address == "":
			o.Directory = filepath.Clean(directory)
		default:
			return fmt.Errorf("device %d: %w: give an address for an ASD, a directory from the root for a local device", number, manager.ErrInvalid)
		}
		return nil
	})
	if err != nil {
		return OSD{}, err
	}
	if err := r.client.Refresh(ctx); err != nil {
		return OSD{}, err
	}
	return s.OSD(ctx, number)
}

// SetDomain says what fails together with the machine of an ASD, which is no node: a node says that
// itself. It holds for all devices of that machine; fragments that are too many in a domain then
// are put elsewhere.
func (s *Service) SetDomain(ctx context.Context, number uint32, domain string) (OSD, error) {
	r, err := s.open(ctx)
	if err != nil {
		return OSD{}, err
	}
	was, err := s.OSD(ctx, number)
	if err != nil {
		return OSD{}, err
	}
	if domain == "" {
		return OSD{}, fmt.Errorf("device %d: %w: name the domain that its machine is in", number, manager.ErrInvalid)
	}
	if _, _, err := s.machine(was.Node, domain); err != nil {
		return OSD{}, err
	}
	all, err := r.manager.OSDs(ctx)
	if err != nil {
		return OSD{}, err
	}
	for _, o := range all {
		if o.Node != was.Node || o.Domain == domain {
			continue
		}
		if _, err := r.manager.Update(ctx, o.Number, func(o *manager.OSD) error { o.Domain = domain; return nil }); err != nil {
			return OSD{}, err
		}
	}
	if err := errors.Join(r.manager.Follow(ctx), r.client.Refresh(ctx)); err != nil {
		return OSD{}, err
	}
	if err := s.survey(ctx, r); err != nil {
		return OSD{}, err
	}
	return s.OSD(ctx, number)
}

// Decommission begins to empty a device. Refused when the others could not take
// what it holds by any policy that keeps acknowledged data safe.
func (s *Service) Decommission(ctx context.Context, number uint32) (OSD, error) {
	r, err := s.open(ctx)
	if err != nil {
		return OSD{}, err
	}
	if err := s.canSpare(ctx, r, number); err != nil {
		return OSD{}, err
	}
	if _, err := r.manager.Decommission(ctx, number); err != nil {
		return OSD{}, err
	}
	if err := r.manager.Follow(ctx); err != nil {
		return OSD{}, err
	}
	if err := s.survey(ctx, r); err != nil {
		return OSD{}, err
	}
	s.event(maintenance.Event{Code: "osd.emptying", OSD: number, Level: slog.LevelInfo, Message: fmt.Sprintf("device %d is being emptied", number)})
	return s.OSD(ctx, number)
}

// canSpare tells whether each preset in use can be met without a device, but with
// those that come.
func (s *Service) canSpare(ctx context.Context, r *running, number uint32, come ...manager.OSD) error {
	osds, err := r.manager.OSDs(ctx)
	if err != nil {
		return err
	}
	presets, err := r.manager.Presets(ctx)
	if err != nil {
		return err
	}
	of := ""
	left := append(slices.DeleteFunc(slices.Clone(osds), func(o manager.OSD) bool {
		if o.Number == number && o.Domain != "" {
			of = " of domain " + o.Domain
		}
		return o.Number == number
	}), come...)
	for _, p := range presets {
		if _, _, before := p.Choose(manager.PerGroup(osds, p)); before != nil {
			continue
		}
		if _, _, err := p.Choose(manager.PerGroup(left, p)); err != nil {
			return fmt.Errorf("device %d%s: %w: %w: add a device first", number, of, manager.ErrUnsafe, err)
		}
	}
	return nil
}

// Purge gives up a device that does not come back. Objects that cannot be read
// without it are lost: refused unless that is accepted.
func (s *Service) Purge(ctx context.Context, number uint32, accept bool) (OSD, []string, error) {
	r, err := s.open(ctx)
	if err != nil {
		return OSD{}, nil, err
	}
	const shown = 20
	lost, names, err := r.agent.Lost(ctx, []uint32{number}, shown)
	if err != nil {
		return OSD{}, nil, err
	}
	if _, err := r.manager.Purge(ctx, number, lost, accept); err != nil {
		return OSD{}, names, err
	}
	if err := r.manager.Follow(ctx); err != nil {
		return OSD{}, names, err
	}
	if err := s.survey(ctx, r); err != nil {
		return OSD{}, names, err
	}
	s.event(maintenance.Event{Code: "osd.purged", OSD: number, Level: slog.LevelWarn, Message: fmt.Sprintf("device %d is given up, with %d objects lost", number, lost)})
	o, err := s.OSD(ctx, number)
	if errors.Is(err, manager.ErrNotFound) { // it has left already
		err = nil
	}
	return o, names, err
}

// Survey has every object looked at, and repaired where it is not complete, soon.
func (s *Service) Survey(ctx context.Context) error {
	if !s.Made() {
		return nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	return s.survey(ctx, r)
}

// Recover begins to rebuild the records of a namespace, or with an empty name of all
// that lost them, from the devices. force accepts that devices are away.
func (s *Service) Recover(ctx context.Context, namespace string, force bool) error {
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	return r.agent.RecoverSoon(namespace, maintenance.RecoverOptions{Force: force})
}

// RotateKey draws a new wrapping key for the data keys of encrypted presets, in place
// of the one in use, and returns its id and how many data keys it wraps. Fragments
// stay as they are. manager.ErrState without an Alba; ErrManyKeys.
func (s *Service) RotateKey(ctx context.Context) (id string, keys int, err error) {
	if !s.Made() {
		return "", 0, fmt.Errorf("%w: there is no object store on this node, and no key to rotate", manager.ErrState)
	}
	r, err := s.open(ctx)
	if err != nil {
		return "", 0, err
	}
	w, keys, err := r.keys.rotate(ctx)
	if err != nil {
		return "", 0, err
	}
	s.event(maintenance.Event{Code: "store.key_rotated", Level: slog.LevelInfo, Message: fmt.Sprintf("the wrapping key was rotated: %v wraps %d data keys", w, keys)})
	return w.String(), keys, nil
}

// Verify begins to verify a device, or all with 0, in the background.
func (s *Service) Verify(ctx context.Context, number uint32) error {
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	if number != 0 {
		if _, err := r.manager.OSD(ctx, number); err != nil {
			return err
		}
	}
	return r.agent.VerifySoon(number)
}

// Namespaces returns up to limit namespaces after a name.
func (s *Service) Namespaces(ctx context.Context, prefix, after string, limit int) ([]manager.Namespace, error) {
	if !s.Made() {
		return nil, nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return r.manager.NamespacesAfter(ctx, prefix, after, limit)
}

// Presets returns the presets.
func (s *Service) Presets(ctx context.Context) ([]Preset, error) {
	if !s.Made() {
		return nil, nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	osds, err := r.manager.OSDs(ctx)
	if err != nil {
		return nil, err
	}
	list, err := r.manager.Presets(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Preset, len(list))
	for i, p := range list {
		out[i] = explain(p, osds)
	}
	return out, nil
}

// Preset is a preset with what it gives on the devices there are.
type Preset struct {
	preset.Preset
	Now       string // the policy that new objects get; empty: none can be met
	Explain   string // what that policy survives
	Problem   string // why none can be met
	Redundant bool   // vPools may use it
	// OutlivesNode tells that what the policy stores outlives any one node.
	OutlivesNode bool
}

func explain(p preset.Preset, osds []manager.OSD) Preset {
	out := Preset{Preset: p, Redundant: p.Redundant() == nil}
	groups := manager.PerGroup(osds, p)
	q, _, err := p.Choose(groups)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	out.Now, out.Explain, out.OutlivesNode = q.String(), p.Explain(q, groups), q.Complete(groups).Groups > 0
	return out
}

// Preset returns a preset by name; empty: the default.
func (s *Service) Preset(ctx context.Context, name string) (Preset, error) {
	r, err := s.open(ctx)
	if err != nil {
		return Preset{}, err
	}
	p, err := r.manager.Preset(ctx, name)
	if err != nil {
		return Preset{}, err
	}
	osds, err := r.manager.OSDs(ctx)
	return explain(p, osds), err
}

// NewPreset is what a preset is made of.
type NewPreset struct {
	Name          string
	Policies      []preset.Policy // empty: those for the devices that there are, and it follows them
	FragmentBytes int             // 0: preset.DefaultFragmentBytes
	PieceBytes    int             // 0: preset.DefaultPieceBytes
	Compression   fragment.Compression
	Encrypt       bool
	OSDs          []uint32
	Spread        preset.Spread
}

// CreatePreset adds a preset.
func (s *Service) CreatePreset(ctx context.Context, n NewPreset) (Preset, error) {
	r, err := s.open(ctx)
	if err != nil {
		return Preset{}, err
	}
	osds, err := r.manager.OSDs(ctx)
	if err != nil {
		return Preset{}, err
	}
	p := preset.Preset{Name: n.Name, Policies: n.Policies, FragmentBytes: n.FragmentBytes, PieceBytes: n.PieceBytes, Compression: preset.Compression{Compression: n.Compression}, OSDs: n.OSDs, Spread: n.Spread}
	if len(p.Policies) == 0 {
		p.Policies, p.Automatic = preset.Automatic(manager.PerGroup(osds, p)), true
	}
	if p.FragmentBytes == 0 {
		p.FragmentBytes = preset.DefaultFragmentBytes
	}
	if p.PieceBytes == 0 {
		p.PieceBytes = preset.DefaultPieceBytes
	}
	if err := p.Validate(); err != nil {
		return Preset{}, err
	}
	if err := s.haveDomains(p, osds); err != nil {
		return Preset{}, err
	}
	if _, err := r.manager.Preset(ctx, n.Name); err == nil {
		return Preset{}, fmt.Errorf("preset %s: %w", n.Name, manager.ErrExists)
	}
	if n.Encrypt {
		if p.KeyID, err = r.keys.make(ctx); err != nil {
			return Preset{}, err
		}
	}
	if p, err = r.manager.CreatePreset(ctx, p); err != nil {
		return Preset{}, err
	}
	return explain(p, osds), nil
}

// haveDomains refuses a preset that spreads by domain while nobody said where the machines
// of its devices are.
func (s *Service) haveDomains(p preset.Preset, osds []manager.OSD) error {
	if p.Spread != preset.ByDomain {
		return nil
	}
	for _, o := range osds {
		if o.Domain == "" && o.Takes() && (len(p.OSDs) == 0 || slices.Contains(p.OSDs, o.Number)) {
			return fmt.Errorf("%w: preset %s spreads by domain, and %s, where device %d is, has none: set domain in the node's configuration and restart it, or claim the ASD of a machine that is no node with its domain",
				manager.ErrInvalid, p.Name, s.NodeName(o.Node), o.Number)
		}
	}
	return nil
}

// UpdatePreset changes policies and the sizes of fragments and pieces; nil and 0 leave them.
func (s *Service) UpdatePreset(ctx context.Context, name string, policies []preset.Policy, fragmentBytes, pieceBytes int) (Preset, error) {
	r, err := s.open(ctx)
	if err != nil {
		return Preset{}, err
	}
	_, err = r.manager.UpdatePreset(ctx, name, func(p *preset.Preset) {
		if policies != nil {
			p.Policies, p.Automatic = policies, false
		}
		if fragmentBytes != 0 {
			p.FragmentBytes = fragmentBytes
		}
		if pieceBytes != 0 {
			p.PieceBytes = pieceBytes
		}
	})
	if err != nil {
		return Preset{}, err
	}
	if err := s.survey(ctx, r); err != nil {
		return Preset{}, err
	}
	return s.Preset(ctx, name)
}

// SetDefaultPreset makes a preset the one that vPools get which name none.
func (s *Service) SetDefaultPreset(ctx context.Context, name string) error {
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	return r.manager.SetDefaultPreset(ctx, name)
}

// DeletePreset removes a preset that nothing uses.
func (s *Service) DeletePreset(ctx context.Context, name string) error {
	if !s.Made() {
		return nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	return r.manager.DeletePreset(ctx, name)
}

// OwnJobs returns the jobs of maintenance on this node, newest first.
func (s *Service) OwnJobs(ctx context.Context) ([]maintenance.Job, error) {
	if !s.Made() {
		return nil, nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	return r.agent.Jobs(), nil
}

// ClearJobs forgets jobs that ended.
func (s *Service) ClearJobs(ctx context.Context) error {
	if !s.Made() {
		return nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return err
	}
	r.agent.ClearJobs()
	if r.leader.leading() {
		return nil
	}
	return s.ask(ctx, clearKey)
}

// Status is the state of the Alba as a whole.
type Status struct {
	Made    bool
	Cluster string
	Safety  maintenance.Safety
	OSDs    int
	Failed  int   // devices that do not work
	Total   int64 // bytes of the devices
	Free    int64
	Events  []Event // newest first
	// Maintainer is the id of the node that does the maintenance.
	Maintainer string
}

// Sentence says the safety in words.
func (t Status) Sentence() string {
	least, ok := t.Safety.Least()
	by := ""
	switch n, spread := t.Safety.LeastDomains(); {
	case spread && n <= 0:
		by = "; the loss of a domain could lose some of what is spread by domain"
	case spread && n == 1:
		by = "; what is spread by domain, of any 1 domain"
	case spread:
		by = fmt.Sprintf("; what is spread by domain, of any %d domains", n)
	}
	switch {
	case !t.Made:
		return "there is no Alba on this node yet; a vPool with the alba backend makes one"
	case t.Safety.At.IsZero():
		return "not surveyed yet"
	case !ok:
		return "nothing is stored yet"
	case least < 0:
		return fmt.Sprintf("%d objects cannot be read now: bring devices back", t.Safety.Tolerates[-1])
	case least == 0:
		return fmt.Sprintf("the loss of another device could lose %d objects", t.Safety.Tolerates[0])
	case least == 1:
		return "everything survives the loss of any 1 more device" + by
	}
	return fmt.Sprintf("everything survives the loss of any %d more devices", least) + by
}

// Status looks at the Alba.
func (s *Service) Status(ctx context.Context) (Status, error) {
	t := Status{Made: s.Made()}
	if !t.Made {
		return t, nil
	}
	r, err := s.open(ctx)
	if err != nil {
		return t, err
	}
	osds, err := s.OSDs(ctx)
	if err != nil {
		return t, err
	}
	told, err := s.known(ctx, r)
	if err != nil {
		return t, err
	}
	t.Cluster, t.Safety, t.OSDs, t.Maintainer = r.manager.Cluster(), told.Safety, len(osds), told.Node
	for _, o := range osds {
		if o.Broken() != "" {
			t.Failed++
		}
		t.Total += o.Seen.Used + o.Seen.Free
		t.Free += o.Seen.Free
	}
	t.Events = told.Events
	slices.Reverse(t.Events)
	return t, nil
}

// Broken says what is wrong with a device; empty: nothing.
func (o OSD) Broken() string {
	switch {
	case o.Seen.Error != "":
		return o.Seen.Error
	case o.Disqualified != "":
		return o.Disqualified
	case !o.RebuildFrom.IsZero():
		return "it was silent for too long; its fragments are made anew elsewhere"
	case o.Seen.Suspect:
		return "it is being compared with the manifests: " + o.Seen.Reconcile
	}
	return ""
}
