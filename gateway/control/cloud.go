package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/integrations/cinder"
)

const (
	// cloudReads bounds what asks clouds at a time, so that callers who may only look
	// do not turn a node on a cloud.
	cloudReads = 2
	// maxClouds and maxVolumeTypes bound a record and a list.
	maxClouds      = 64
	maxVolumeTypes = 256
	// maxCloudText and maxCloudCA bound options, in bytes.
	maxCloudText = 255
	maxCloudCA   = 1 << 20
	// cloudTimeoutMin and cloudTimeoutMax bound what each request may take: the whole of
	// an operation has opTimeout.
	cloudTimeoutMin = time.Second
	cloudTimeoutMax = time.Minute
)

// NewCloud is what a cloud is registered from.
type NewCloud struct {
	Name   string
	Spec   model.CloudSpec
	Secret string
}

// CloudPatch changes a cloud; nil leaves a field as it is.
type CloudPatch struct {
	Name   *string
	Secret *string
	// Spec changes a copy of the present one; nil: it stays.
	Spec func(*model.CloudSpec)
}

func cloudObject(name string) string { return "openstack cloud " + name }

// FindCloud returns a cloud by name or id.
func (c *Controller) FindCloud(ref string) (model.Cloud, error) {
	r, ok := c.model.FindCloud(ref)
	if !ok {
		return r, &Error{Code: CodeNotFound, Object: cloudObject(clip(ref)), Message: "there is no such cloud", Hint: "ovgate openstack cloud list shows those that are registered"}
	}
	return r, nil
}

// cloudHere is what clouds are compared with. The driver tells the cluster's id, which is
// the same whichever node it asks.
func (c *Controller) cloudHere(rec model.Cloud) cinder.Here {
	here := cinder.Here{Location: "ovgate:" + c.model.Cluster().ID, Known: rec.Backends}
	for _, v := range c.model.VPools() {
		if v.State != model.StateDeleting {
			here.VPools = append(here.VPools, v.Name)
		}
	}
	slices.Sort(here.VPools)
	return here
}

// checkCloud refuses options that cannot be.
func checkCloud(object string, s model.CloudSpec) *Error {
	bad := func(field, hint, format string, a ...any) *Error {
		return invalid("options."+field, object, hint, format, a...)
	}
	for field, v := range map[string]string{"user": s.User, "domain": s.Domain, "project": s.Project, "projectDomain": s.ProjectDomain, "region": s.Region, "url": s.URL} {
		if len(v) > maxCloudText || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' }) {
			return bad(field, fmt.Sprintf("use up to %d bytes", maxCloudText), "it is too long, or has control characters")
		}
	}
	if err := cinder.CheckURL(s.URL); err != nil {
		return bad("url", "give what OS_AUTH_URL of the cloud's users is, such as https://keystone.example.org:5000/v3", "%s", err)
	}
	switch s.Interface {
	case "", "public", "internal", "admin":
	default:
		return bad("interface", "use public, internal or admin", "there is no interface %q", clip(s.Interface))
	}
	switch {
	case s.User == "":
		return bad("user", "give a user that administers Cinder, or the id of an application credential of one", "the user is missing")
	case s.Credential && (s.Domain != "" || s.Project != "" || s.ProjectDomain != ""):
		return bad("applicationCredential", "leave domain and project out, or make them empty", "an application credential has its user, project and domains already")
	case !s.Credential && s.Project == "":
		return bad("project", "give the project that the user administers, admin for one", "the project is missing")
	case len(s.CA) > maxCloudCA:
		return bad("ca", "give the certificate of the CA alone", "it has more than %d bytes", maxCloudCA)
	}
	if t := time.Duration(s.TimeoutMs) * time.Millisecond; t != 0 && (t < cloudTimeoutMin || t > cloudTimeoutMax) {
		return bad("timeoutMs", fmt.Sprintf("use %d to %d", cloudTimeoutMin.Milliseconds(), cloudTimeoutMax.Milliseconds()), "a request cannot have %d ms", s.TimeoutMs)
	}
	return nil
}

func cloudOptions(s model.CloudSpec, secret string) cinder.Options {
	o := cinder.Options{
		AuthURL: s.URL, User: s.User, Secret: secret, Domain: s.Domain, Project: s.Project, ProjectDomain: s.ProjectDomain, Credential: s.Credential,
		Region: s.Region, Interface: s.Interface, CA: []byte(s.CA), Timeout: time.Duration(s.TimeoutMs) * time.Millisecond,
	}
	if !s.Credential && o.Domain == "" {
		o.Domain = defaultDomain
	}
	return o
}

// defaultDomain is where Keystone has the users of a cloud that uses no domains.
const defaultDomain = "Default"

// cloudCauses says what to do about a cloud's refusal, and which field is wrong.
var cloudCauses = []struct {
	is    error
	code  Code
	field string
	hint  string
}{
	{cinder.ErrCredentials, CodeInvalid, "secret", "correct user, domain, project and secret: ovgate openstack cloud set NAME --user USER --secret-stdin"},
	{cinder.ErrDenied, CodeInvalid, "user", "give the user the role admin in this project, or what Cinder's policy asks for"},
	{cinder.ErrCatalog, CodeInvalid, "region", "correct region and interface; openstack catalog list shows what there is"},
	{cinder.ErrCertificate, CodeInvalid, "ca", "give the CA that signed the cloud's certificates: --cloud-ca FILE"},
	{cinder.ErrPlain, CodeInvalid, "interface", "choose an interface of the catalog with https"},
	{cinder.ErrUnreachable, CodeBackend, "url", "correct the URL, or bring cloud or network back"},
	{cinder.ErrConflict, CodeInUse, "", "decide it in the cloud, or change the volume type: ovgate openstack type set"},
	{cinder.ErrInUse, CodeInUse, "", "Cinder keeps types that have volumes as they are: declare another type, and retype the volumes"},
	{cinder.ErrRefused, CodeBackend, "", "look at the cloud's logs"},
}

// cloudError gives a cloud's refusal its remedy.
func cloudError(object string, err error) error {
	var e *Error
	if errors.As(err, &e) || err == nil {
		return err
	}
	for _, cause := range cloudCauses {
		if errors.Is(err, cause.is) {
			return &Error{Code: cause.code, Field: cause.field, Object: object, Message: err.Error(), Hint: cause.hint, Err: err}
		}
	}
	return explain(object, err)
}

// CreateCloud signs in to a cloud, tries what is needed of it, and registers it.
func (c *Controller) CreateCloud(ctx context.Context, in NewCloud) (model.Cloud, cinder.Report, error) {
	var report cinder.Report
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Cloud{}, report, err
	}
	defer done()
	object := cloudObject(clip(in.Name))
	if e := checkName("openstack cloud", in.Name); e != nil {
		return model.Cloud{}, report, e
	}
	if err := c.cloudLock.acquire(ctx); err != nil {
		return model.Cloud{}, report, explain(object, err)
	}
	defer c.cloudLock.release()
	if _, taken := c.model.FindCloud(in.Name); taken {
		return model.Cloud{}, report, cloudTaken(in.Name)
	}
	if len(c.model.Clouds()) >= maxClouds {
		return model.Cloud{}, report, &Error{Code: CodeInUse, Object: object, Message: fmt.Sprintf("there are %d clouds already", maxClouds), Hint: "delete one that is not used"}
	}
	id, err := model.NewUUID()
	if err != nil {
		return model.Cloud{}, report, err
	}
	rec := model.Cloud{ID: id, Name: in.Name, Spec: in.Spec, Created: c.clock.Now().UTC()}
	if rec.Secret, err = c.opt.Sealer.Seal(id, in.Secret); err != nil {
		return rec, report, err
	}
	if report, err = c.testCloud(ctx, &rec, in.Secret); err != nil {
		return rec, report, err
	}
	if rec, err = c.model.CreateCloud(ctx, rec); err != nil {
		return rec, report, explain(object, err)
	}
	c.log.Info("OpenStack cloud registered", "cloud", rec.Name, "url", rec.Spec.URL)
	c.tell(event.CloudRegistered, cloudObject(rec.Name), "url", rec.Spec.URL)
	c.opt.Changed("cloud", rec.ID)
	return rec, report, nil
}

func cloudTaken(name string) *Error {
	return &Error{Code: CodeExists, Field: "name", Object: cloudObject(clip(name)), Message: "a cloud of this name exists", Hint: "choose another name"}
}

// testCloud tests a cloud and keeps in its record what was found.
func (c *Controller) testCloud(ctx context.Context, rec *model.Cloud, secret string) (cinder.Report, error) {
	object := cloudObject(rec.Name)
	if e := checkCloud(object, rec.Spec); e != nil {
		return cinder.Report{}, e
	}
	if secret == "" {
		return cinder.Report{}, invalid("secret", object, "give it on standard input, with --secret-stdin", "the secret of %s is missing", rec.Spec.User)
	}
	report, err := cinder.Check(ctx, cloudOptions(rec.Spec, secret), c.cloudHere(*rec), c.clock)
	if err != nil {
		return report, cloudError(object, err)
	}
	rec.Version, rec.Warnings, rec.Tested = report.Version, report.Warnings, c.clock.Now().UTC()
	rec.Backends = rec.Backends[:0:0]
	for _, b := range report.Backends {
		if b.Service {
			rec.Backends = append(rec.Backends, b.Host)
		}
	}
	return report, nil
}

// TestCloud tests a registered cloud again, and remembers what it found. A step that failed
// is in the report.
func (c *Controller) TestCloud(ctx context.Context, ref string) (model.Cloud, cinder.Report, error) {
	var report cinder.Report
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Cloud{}, report, err
	}
	defer done()
	if err := c.cloudLock.acquire(ctx); err != nil {
		return model.Cloud{}, report, explain(cloudObject(clip(ref)), err)
	}
	defer c.cloudLock.release()
	rec, err := c.FindCloud(ref)
	if err != nil {
		return rec, report, err
	}
	secret, err := c.cloudSecret(rec)
	if err != nil {
		return rec, report, err
	}
	tested := rec
	report, err = c.testCloud(ctx, &tested, secret)
	if err != nil && report.Failed() != nil {
		return rec, report, nil
	}
	if err != nil {
		return rec, report, err
	}
	rec, err = c.model.UpdateCloud(ctx, rec.ID, func(r *model.Cloud) error {
		r.Version, r.Warnings, r.Backends, r.Tested = tested.Version, tested.Warnings, tested.Backends, tested.Tested
		return nil
	})
	c.opt.Changed("cloud", rec.ID)
	return rec, report, explainNil(cloudObject(rec.Name), err)
}

// cloudSecret opens the secret of a cloud.
func (c *Controller) cloudSecret(r model.Cloud) (string, error) {
	s, err := c.opt.Sealer.Open(r.ID, r.Secret)
	if err != nil {
		return "", &Error{Code: CodeBackend, Object: cloudObject(r.Name), Message: "its secret does not open with this node's seal.key", Hint: "give it again: ovgate openstack cloud set " + r.Name + " --secret-stdin", Err: err}
	}
	return s, nil
}

// UpdateCloud changes a cloud. New addresses and credentials are tried before they are
// kept; a new address needs the secret again.
func (c *Controller) UpdateCloud(ctx context.Context, name string, p CloudPatch) (model.Cloud, cinder.Report, error) {
	var report cinder.Report
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Cloud{}, report, err
	}
	defer done()
	if err := c.cloudLock.acquire(ctx); err != nil {
		return model.Cloud{}, report, explain(cloudObject(clip(name)), err)
	}
	defer c.cloudLock.release()
	old, err := c.FindCloud(name)
	if err != nil {
		return old, report, err
	}
	object := cloudObject(old.Name)
	rec := old
	if p.Name != nil && *p.Name != old.Name {
		if e := checkName("openstack cloud", *p.Name); e != nil {
			return old, report, e
		}
		if _, taken := c.model.FindCloud(*p.Name); taken {
			return old, report, cloudTaken(*p.Name)
		}
		rec.Name = *p.Name
	}
	if p.Spec != nil || p.Secret != nil {
		var secret string
		if p.Spec != nil {
			p.Spec(&rec.Spec)
		}
		// Signing in shows the secret to whoever is there: one that is kept goes nowhere else.
		if p.Secret == nil && rec.Spec.URL != old.Spec.URL {
			return old, report, invalid("secret", object, "give the secret again, on standard input, with --secret-stdin", "with another address the secret has to be given again")
		}
		if p.Secret != nil {
			secret = *p.Secret
			rec.Secret, err = c.opt.Sealer.Seal(rec.ID, secret)
		} else {
			secret, err = c.cloudSecret(old)
		}
		if err != nil {
			return old, report, err
		}
		if report, err = c.testCloud(ctx, &rec, secret); err != nil {
			return old, report, err
		}
	}
	kept, err := c.model.UpdateCloud(ctx, old.ID, func(r *model.Cloud) error {
		*r = rec
		return nil
	})
	if err != nil {
		return old, report, explain(object, err)
	}
	c.log.Info("OpenStack cloud changed", "cloud", kept.Name)
	c.tell(event.CloudChanged, cloudObject(kept.Name))
	c.opt.Changed("cloud", kept.ID)
	return kept, report, nil
}

// DeleteCloud forgets a cloud; an absent one is no error. Nothing at the cloud changes.
func (c *Controller) DeleteCloud(ctx context.Context, ref string) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := c.cloudLock.acquire(ctx); err != nil {
		return explain(cloudObject(clip(ref)), err)
	}
	defer c.cloudLock.release()
	r, ok := c.model.FindCloud(ref)
	if !ok {
		return nil
	}
	if err := c.model.DeleteCloud(ctx, r.ID); err != nil {
		return explain(cloudObject(r.Name), err)
	}
	c.log.Info("OpenStack cloud forgotten", "cloud", r.Name)
	c.tell(event.CloudForgotten, cloudObject(r.Name))
	c.opt.Changed("cloud", r.ID)
	return nil
}

// Limits of a vDisk that the driver keeps: what is below is raised, so it is refused here.
const (
	typeIOPSMin  = 10
	typeBytesMin = 1 << 20
	typeBurstMax = 60_000 // ms
)

// SetVolumeType declares a volume type of a cloud, or changes it. ApplyCloud makes it.
func (c *Controller) SetVolumeType(ctx context.Context, cloud string, t model.VolumeType) (model.Cloud, error) {
	if err := c.checkType(t); err != nil {
		return model.Cloud{}, err
	}
	return c.changeTypes(ctx, cloud, func(types []model.VolumeType) ([]model.VolumeType, error) {
		for i := range types {
			if types[i].Name == t.Name {
				types[i] = t
				return types, nil
			}
		}
		if len(types) >= maxVolumeTypes {
			return nil, &Error{Code: CodeInUse, Object: typeObject(t.Name), Message: fmt.Sprintf("the cloud has %d types already", maxVolumeTypes), Hint: "delete one that is not used"}
		}
		return append(types, t), nil
	})
}

// DeleteVolumeType takes a declaration back; an absent one is no error. The type itself
// stays until ApplyCloud with prune.
func (c *Controller) DeleteVolumeType(ctx context.Context, cloud, name string) error {
	_, err := c.changeTypes(ctx, cloud, func(types []model.VolumeType) ([]model.VolumeType, error) {
		return slices.DeleteFunc(types, func(t model.VolumeType) bool { return t.Name == name }), nil
	})
	return err
}

func typeObject(name string) string { return "volume type " + clip(name) }

func (c *Controller) checkType(t model.VolumeType) error {
	object := typeObject(t.Name)
	if e := checkName("volume type", t.Name); e != nil {
		return e
	}
	if _, ok := c.model.FindVPool(t.VPool); !ok {
		return noVPool(clip(t.VPool), "vpool")
	}
	if t.Backend != "" && !namePattern.MatchString(t.Backend) {
		return invalid("backend", object, "give volume_backend_name of cinder.conf", "%q is not the name of a backend", clip(t.Backend))
	}
	l := t.Limits
	for _, n := range []struct {
		field           string
		value, min, max int64
	}{
		{"iops", l.IOPS, typeIOPSMin, 1 << 40}, {"iopsPerGib", l.IOPSPerGiB, 1, 1 << 40},
		{"bytesPerSecond", l.Bytes, typeBytesMin, 1 << 50}, {"bytesPerSecondPerGib", l.BytesPerGiB, 1, 1 << 50}, {"burstMs", l.BurstMillis, 1, typeBurstMax},
	} {
		if n.value != 0 && (n.value < n.min || n.value > n.max) {
			return invalid("limits."+n.field, object, fmt.Sprintf("use %d to %d, or 0 for no limit", n.min, n.max), "%d is no limit that a vDisk can have", n.value)
		}
	}
	return nil
}

func (c *Controller) changeTypes(ctx context.Context, ref string, fn func([]model.VolumeType) ([]model.VolumeType, error)) (model.Cloud, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Cloud{}, err
	}
	defer done()
	rec, err := c.FindCloud(ref)
	if err != nil {
		return rec, err
	}
	rec, err = c.model.UpdateCloud(ctx, rec.ID, func(r *model.Cloud) (err error) {
		// A vPool may be called by its id.
		r.Types, err = fn(r.Types)
		for i := range r.Types {
			if v, ok := c.model.FindVPool(r.Types[i].VPool); ok {
				r.Types[i].VPool = v.Name
			}
		}
		return err
	})
	if err != nil {
		return rec, explain(cloudObject(rec.Name), err)
	}
	c.opt.Changed("cloud", rec.ID)
	return rec, nil
}

// connectCloud signs in to a registered cloud.
func (c *Controller) connectCloud(ctx context.Context, rec model.Cloud) (*cinder.Cloud, error) {
	secret, err := c.cloudSecret(rec)
	if err != nil {
		return nil, err
	}
	cloud, err := cinder.Connect(ctx, cloudOptions(rec.Spec, secret), c.clock)
	return cloud, cloudError(cloudObject(rec.Name), err)
}

// ApplyCloud makes the volume types and QoS specs of a cloud what they should be, and
// answers the plan; with dryRun it only makes the plan. done counts the changes that were
// made, also before an error. Repeating it goes on.
func (c *Controller) ApplyCloud(ctx context.Context, ref string, dryRun, prune bool) (plan cinder.Plan, n int, err error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return plan, 0, err
	}
	defer done()
	if err := c.cloudLock.acquire(ctx); err != nil {
		return plan, 0, explain(cloudObject(clip(ref)), err)
	}
	defer c.cloudLock.release()
	rec, err := c.FindCloud(ref)
	if err != nil {
		return plan, 0, err
	}
	object := cloudObject(rec.Name)
	cloud, err := c.connectCloud(ctx, rec)
	if err != nil {
		return plan, 0, err
	}
	defer cloud.Close()
	var want []cinder.Type
	for _, t := range rec.Types {
		want = append(want, cinder.Type{
			Name: t.Name, VPool: t.VPool, Backend: t.Backend, Multiattach: t.Multiattach,
			Limits: cinder.Limits{IOPS: t.Limits.IOPS, IOPSPerGiB: t.Limits.IOPSPerGiB, Bytes: t.Limits.Bytes, BytesPerGiB: t.Limits.BytesPerGiB, BurstMillis: t.Limits.BurstMillis},
		})
	}
	if plan, err = cloud.Plan(ctx, c.cloudHere(rec), want, prune); err != nil {
		return plan, 0, cloudError(object, err)
	}
	if len(plan.Actions) == 0 {
		return plan, 0, &Error{Code: CodeInUse, Object: object, Message: "no backend of the cloud is this ovgate, so there is nothing to make volume types for", Hint: "load the driver: ovgate openstack driver install, ovgate openstack driver config"}
	}
	if dryRun {
		return plan, 0, nil
	}
	if n, err = plan.Apply(ctx); n > 0 {
		c.log.Info("volume types of an OpenStack cloud changed", "cloud", rec.Name, "changes", n)
	}
	if err != nil {
		e := cloudError(object, err)
		if x := (*Error)(nil); n > 0 && errors.As(e, &x) {
			x.Message += fmt.Sprintf(" (after %d changes that are done)", n)
		}
		return plan, n, e
	}
	rec, err = c.model.UpdateCloud(ctx, rec.ID, func(r *model.Cloud) error {
		r.Applied = c.clock.Now().UTC()
		return nil
	})
	c.opt.Changed("cloud", rec.ID)
	return plan, n, explainNil(object, err)
}

// withCloud runs f with a cloud that is only looked at.
func (c *Controller) withCloud(ctx context.Context, ref string, f func(context.Context, model.Cloud, *cinder.Cloud) error) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	select {
	case c.cloudSlots <- struct{}{}:
		defer func() { <-c.cloudSlots }()
	case <-ctx.Done():
		return explain(cloudObject(clip(ref)), ctx.Err())
	}
	rec, err := c.FindCloud(ref)
	if err != nil {
		return err
	}
	cloud, err := c.connectCloud(ctx, rec)
	if err != nil {
		return err
	}
	defer cloud.Close()
	return cloudError(cloudObject(rec.Name), f(ctx, rec, cloud))
}

// CloudBackends lists the backends of a cloud that are this ovgate.
func (c *Controller) CloudBackends(ctx context.Context, ref string) (out []cinder.Backend, err error) {
	err = c.withCloud(ctx, ref, func(ctx context.Context, rec model.Cloud, cloud *cinder.Cloud) error {
		out, err = cloud.Backends(ctx, c.cloudHere(rec))
		return err
	})
	return out, err
}

// CloudVolumes lists the volumes of a cloud on this ovgate with their vDisks.
func (c *Controller) CloudVolumes(ctx context.Context, ref string) (m cinder.Mapping, err error) {
	err = c.withCloud(ctx, ref, func(ctx context.Context, rec model.Cloud, cloud *cinder.Cloud) error {
		backends, err := cloud.Backends(ctx, c.cloudHere(rec))
		if err == nil {
			m, err = cloud.Map(ctx, backends, c.cinderDisks)
		}
		return err
	})
	return m, err
}

// CloudOrphan is a side of a pair without the other.
type CloudOrphan struct {
	Cloud string // of a volume; empty: a vDisk, for which all clouds were asked
	cinder.Orphan
}

// CloudOrphans lists vDisks that no volume of any registered cloud has, and volumes of any
// that have no vDisk, and the same of snapshots. One cloud that does not answer is an error: what it has is not known.
func (c *Controller) CloudOrphans(ctx context.Context) ([]CloudOrphan, error) {
	ctx, done, err := c.begin(ctx) // for all of them
	if err != nil {
		return nil, err
	}
	defer done()
	clouds := c.model.Clouds()
	if len(clouds) == 0 {
		return nil, &Error{Code: CodeNotFound, Message: "no OpenStack cloud is registered, so nothing is known of its volumes", Hint: "ovgate openstack cloud create"}
	}
	slices.SortFunc(clouds, func(a, b model.Cloud) int { return strings.Compare(a.Name, b.Name) })
	disks := func() []cinder.VDisk { return c.withSnapshots(ctx, c.cinderDisks()) }
	before := disks()
	var out []CloudOrphan
	var maps []cinder.Mapping
	var snaps []cinder.Snapshots
	for _, rec := range clouds {
		err := c.withCloud(ctx, rec.ID, func(ctx context.Context, rec model.Cloud, cloud *cinder.Cloud) error {
			backends, err := cloud.Backends(ctx, c.cloudHere(rec))
			if err != nil {
				return err
			}
			m, err := cloud.Map(ctx, backends, c.cinderDisks)
			if err != nil {
				return err
			}
			s, err := cloud.Snapshots(ctx, m, disks)
			maps, snaps = append(maps, m), append(snaps, s)
			for _, o := range append(m.Missing, s.Missing...) {
				out = append(out, CloudOrphan{rec.Name, o})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	after := map[string]bool{}
	for _, d := range disks() {
		after[d.ID] = true
		for _, s := range d.Snapshots {
			after[d.ID+"/"+s.ID] = true
		}
	}
	for _, o := range append(cinder.OrphanDisks(before, after, maps...), cinder.OrphanSnapshots(before, after, maps, snaps)...) {
		out = append(out, CloudOrphan{"", o})
	}
	return out, nil
}

// withSnapshots adds the snapshots of the vDisks of volumes, but for those that ovgate makes
// by itself. Of one whose backend is away they are not known.
func (c *Controller) withSnapshots(ctx context.Context, disks []cinder.VDisk) []cinder.VDisk {
	for i := range disks {
		if disks[i].Volume == "" {
			continue
		}
		all, err := c.Snapshots(ctx, disks[i].ID)
		if err != nil {
			continue
		}
		disks[i].Snapshots = []cinder.Snapshot{}
		for _, s := range all {
			if !s.Automatic {
				disks[i].Snapshots = append(disks[i].Snapshots, cinder.Snapshot{ID: s.ID.String(), Name: s.Name, Of: s.Labels[cinder.LabelSnapshot]})
			}
		}
	}
	return disks
}

// cinderDisks lists the vDisks as far as they can be volumes'.
func (c *Controller) cinderDisks() []cinder.VDisk {
	pools := map[string]string{}
	for _, p := range c.model.VPools() {
		pools[p.ID] = p.Name
	}
	var out []cinder.VDisk
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return v.State != model.StateTrashed && v.State != model.StateDeleting }) {
		out = append(out, cinder.VDisk{
			ID: v.ID, Name: v.Name, VPool: pools[v.VPool], Volume: v.Labels[cinder.LabelVolume], Project: v.Labels[cinder.LabelProject],
			Size: v.Size, Stored: c.DiskStatus(v).Stats.StoredBytes,
		})
	}
	slices.SortFunc(out, func(a, b cinder.VDisk) int { return strings.Compare(a.ID, b.ID) })
	return out
}
