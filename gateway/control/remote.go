package control

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/encrypted"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// remoteTimeout bounds a test of a remote store.
const remoteTimeout = time.Minute

// Place is all that it takes to open the store under a vPool.
type Place struct {
	VPool   string // UUID, for counters; empty: of none
	Backend model.Backend
	Remote  model.Remote   // with Backend.Store
	Secret  string         // of Remote, opened
	Key     *encrypted.Key // nil: not encrypted
	// New: there may be nothing yet, so what tells the key is made.
	New bool
}

// RemoteReport is what a test of a remote store found.
type RemoteReport struct {
	Found       json.RawMessage // for model.Remote
	Conditional bool
	Gives       []string // what the store promises and does, in words
	Warnings    []string
	Steps       []remote.Step // each operation
}

// Failed returns the first step that failed, nil if none did.
func (r *RemoteReport) Failed() *remote.Step {
	for i := range r.Steps {
		if !r.Steps[i].OK {
			return &r.Steps[i]
		}
	}
	return nil
}

// NewRemote is what a remote store is registered from.
type NewRemote struct {
	Name   string
	Kind   string
	Spec   model.RemoteSpec
	Secret string
}

// RemotePatch changes a remote store; nil leaves a field as it is.
type RemotePatch struct {
	Name   *string
	Secret *string
	// Spec changes a copy of the present one; nil: it stays.
	Spec func(*model.RemoteSpec)
}

func remoteObject(name string) string { return "backend " + name }

// FindRemote returns a remote store by name or id.
func (c *Controller) FindRemote(ref string) (model.Remote, error) {
	r, ok := c.model.FindRemote(ref)
	if !ok {
		return r, &Error{Code: CodeNotFound, Object: remoteObject(clip(ref)), Message: "there is no such backend", Hint: "ovgate backend list shows those that are registered"}
	}
	return r, nil
}

// FindRemoteAmong is FindRemote where there are no stores but those, by id, for which seen holds.
func (c *Controller) FindRemoteAmong(ref string, seen func(id string) bool) (model.Remote, error) {
	r, err := c.FindRemote(ref)
	if err == nil && !seen(r.ID) {
		return model.Remote{}, &Error{Code: CodeNotFound, Object: remoteObject(clip(ref)), Message: "there is no such backend", Hint: "ovgate backend list shows those that are registered"}
	}
	return r, err
}

// RemoteUsers returns the names of the vPools on a remote store.
func (c *Controller) RemoteUsers(id string) []string {
	var out []string
	for _, v := range c.model.VPools() {
		if v.Backend.Store == id {
			out = append(out, v.Name)
		}
	}
	return out
}

// CreateRemote tests a remote store and registers it if every operation works.
func (c *Controller) CreateRemote(ctx context.Context, in NewRemote) (model.Remote, RemoteReport, error) {
	var none RemoteReport
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Remote{}, none, err
	}
	defer done()
	object := remoteObject(clip(in.Name))
	if e := checkName("backend", in.Name); e != nil {
		return model.Remote{}, none, e
	}
	if _, taken := c.model.FindRemote(in.Name); taken {
		return model.Remote{}, none, remoteTaken(in.Name)
	}
	id, err := model.NewUUID()
	if err != nil {
		return model.Remote{}, none, err
	}
	rec := model.Remote{ID: id, Name: in.Name, Kind: in.Kind, Spec: in.Spec.Clone(), Created: c.clock.Now().UTC()}
	if rec.Secret, err = c.opt.Sealer.Seal(id, in.Secret); err != nil {
		return rec, none, err
	}
	report, err := c.testRemote(ctx, &rec, in.Secret)
	if err != nil {
		return rec, report, explain(object, err)
	}
	rec, err = c.model.CreateRemote(ctx, rec)
	if err != nil {
		return rec, report, explain(object, err)
	}
	c.log.Info("backend registered", "backend", rec.Name, "kind", rec.Kind, "container", rec.Spec.Container)
	c.tell(event.BackendRegistered, remoteObject(rec.Name), "kind", string(rec.Kind))
	return rec, report, nil
}

func remoteTaken(name string) *Error {
	return &Error{Code: CodeExists, Field: "name", Object: remoteObject(clip(name)), Message: "a backend of this name exists", Hint: "choose another name"}
}

// testRemote tests a store and keeps in its record what was found. A step that
// failed is an error: what was found stays for who asks.
func (c *Controller) testRemote(ctx context.Context, rec *model.Remote, secret string) (RemoteReport, error) {
	if e := c.opt.Backends.CheckRemote(*rec); e != nil {
		e.Object = remoteObject(clip(rec.Name))
		return RemoteReport{}, e
	}
	object := remoteObject(rec.Name)
	if secret == "" && (rec.Spec.S3 == nil || !rec.Spec.S3.IAM) {
		return RemoteReport{}, invalid("secret", object, "give it on standard input, with --secret-stdin", "the secret of %s is missing", rec.Spec.User)
	}
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	report, err := c.opt.Backends.TestRemote(ctx, *rec, secret)
	if err != nil {
		e := remoteError(*rec, err)
		e.Object = object
		return report, e
	}
	if s := report.Failed(); s != nil {
		return report, &Error{Code: CodeBackend, Object: object, Message: fmt.Sprintf("%s does not work: %s", s.Step, s.Detail), Hint: remoteHint(*rec)}
	}
	rec.Found, rec.Conditional, rec.Gives, rec.Warnings = report.Found, report.Conditional, report.Gives, report.Warnings
	rec.Tested = c.clock.Now().UTC()
	return report, nil
}

// remoteCauses says what to do about a store's refusal, and which field is wrong.
var remoteCauses = []struct {
	is    error
	field string
	hint  string
}{
	{remote.ErrCredentials, "secret", "correct user and secret: ovgate backend set NAME --user USER --secret-stdin"},
	{remote.ErrDenied, "user", "let this user read, write, list and delete objects there"},
	{remote.ErrNoContainer, "container", "create it at the store, or correct its name"},
	{remote.ErrCertificate, "ca", "give the CA that signed the store's certificate: --ca FILE"},
	{remote.ErrEncryption, "sse", "leave --sse out, or use another one; ovgate vpool create --encrypt encrypts what any store gets"},
	{remote.ErrClock, "", "set the clock of this node, with NTP for one"},
	{backend.ErrUnsupported, "url", "this store cannot carry vPools: use another one"},
	{backend.ErrFull, "", "free or add space at the store"},
	{remote.ErrUnreachable, "url", "correct the URL, or bring store or network back"},
}

// remoteError gives a store's refusal its remedy.
func remoteError(r model.Remote, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	text := strings.TrimPrefix(err.Error(), "backend: ")
	for _, cause := range remoteCauses {
		if errors.Is(err, cause.is) {
			code := CodeInvalid
			if cause.field == "" || errors.Is(err, remote.ErrUnreachable) {
				code = CodeBackend
			}
			return &Error{Code: code, Field: cause.field, Message: text, Hint: cause.hint, Err: err}
		}
	}
	return &Error{Code: CodeBackend, Message: text, Hint: remoteHint(r), Err: err}
}

// offRemote explains why the store of a vPool does not open, unless that has its own
// explanation.
func offRemote(r model.Remote, err error) error {
	for _, cause := range remoteCauses {
		if errors.Is(err, cause.is) {
			return remoteError(r, err)
		}
	}
	return err
}

func remoteHint(r model.Remote) string {
	return "look at the store, or at what this user may do with " + r.Spec.Container
}

// TestRemote tests a registered store again, and remembers what it found.
func (c *Controller) TestRemote(ctx context.Context, ref string) (model.Remote, RemoteReport, error) {
	var none RemoteReport
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Remote{}, none, err
	}
	defer done()
	if err := c.remoteLock.acquire(ctx); err != nil {
		return model.Remote{}, none, explain(remoteObject(clip(ref)), err)
	}
	defer c.remoteLock.release()
	rec, err := c.FindRemote(ref)
	if err != nil {
		return rec, none, err
	}
	object := remoteObject(rec.Name)
	secret, err := c.openSecret(rec)
	if err != nil {
		return rec, none, explain(object, err)
	}
	tested := rec
	report, err := c.testRemote(ctx, &tested, secret)
	if e := (*Error)(nil); errors.As(err, &e) && report.Failed() != nil {
		return rec, report, nil // the report says it
	}
	if err != nil {
		return rec, report, explain(object, err)
	}
	rec, err = c.model.UpdateRemote(ctx, rec.ID, func(r *model.Remote) error {
		// What vPools count on stays; less is for UpdateRemote to refuse.
		if r.Conditional && !tested.Conditional && len(c.RemoteUsers(r.ID)) > 0 {
			r.Warnings = append(tested.Warnings, "it no longer refuses the second writer of one object, which it did when it was registered")
			return nil
		}
		r.Found, r.Conditional, r.Gives, r.Warnings, r.Tested = tested.Found, tested.Conditional, tested.Gives, tested.Warnings, tested.Tested
		return nil
	})
	return rec, report, explainNil(object, err)
}

func explainNil(object string, err error) error {
	if err == nil {
		return nil
	}
	return explain(object, err)
}

// openSecret opens the secret of a remote store.
func (c *Controller) openSecret(r model.Remote) (string, error) {
	if len(r.Secret) == 0 {
		return "", nil
	}
	s, err := c.opt.Sealer.Open(r.ID, r.Secret)
	if err != nil {
		return "", &Error{Code: CodeBackend, Object: remoteObject(r.Name), Message: "its secret does not open with this node's seal.key", Hint: "give it again: ovgate backend set " + r.Name + " --secret-stdin", Err: err}
	}
	return s, nil
}

// UpdateRemote changes a remote store. New addresses and credentials are tried
// before they are kept, against the vPools on it too, which then go on with them
// without a stop.
func (c *Controller) UpdateRemote(ctx context.Context, name string, p RemotePatch) (model.Remote, RemoteReport, error) {
	var report RemoteReport
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.Remote{}, report, err
	}
	defer done()
	if err := c.remoteLock.acquire(ctx); err != nil {
		return model.Remote{}, report, explain(remoteObject(clip(name)), err)
	}
	defer c.remoteLock.release()
	old, err := c.FindRemote(name)
	if err != nil {
		return old, report, err
	}
	object := remoteObject(old.Name)
	rec := old
	rec.Spec = old.Spec.Clone()
	if p.Name != nil && *p.Name != old.Name {
		if e := checkName("backend", *p.Name); e != nil {
			return old, report, e
		}
		if _, taken := c.model.FindRemote(*p.Name); taken {
			return old, report, remoteTaken(*p.Name)
		}
		rec.Name = *p.Name
	}
	if p.Spec == nil && p.Secret == nil {
		rec, err = c.model.UpdateRemote(ctx, old.ID, func(r *model.Remote) error { r.Name = rec.Name; return nil })
		return rec, report, explainNil(object, err)
	}
	if p.Spec != nil {
		p.Spec(&rec.Spec)
	}
	secret := ""
	if p.Secret != nil {
		secret = *p.Secret
		if rec.Secret, err = c.opt.Sealer.Seal(rec.ID, secret); err != nil {
			return old, report, err
		}
	} else if secret, err = c.openSecret(old); err != nil {
		return old, report, err
	}
	users := c.RemoteUsers(old.ID)
	if o, n := old.Spec.Swift, rec.Spec.Swift; o != nil && len(users) > 0 && max(o.Shards, 1) != max(n.Shards, 1) {
		return old, report, invalid("options.shards", object, "leave it as it is", "the objects of vPools spread over %d shards, and would not be found in %d", max(o.Shards, 1), max(n.Shards, 1))
	}
	if report, err = c.testRemote(ctx, &rec, secret); err != nil {
		return old, report, explain(object, err)
	}
	if old.Conditional && !rec.Conditional && len(users) > 0 {
		return old, report, &Error{Code: CodeInUse, Object: object, Message: "the store does not refuse the second writer of one object, which its vPools count on", Hint: "keep the former address"}
	}
	swap, err := c.openRemoteAgain(ctx, rec, secret)
	if err != nil {
		return old, report, explain(object, err)
	}
	kept, err := c.model.UpdateRemote(ctx, old.ID, func(r *model.Remote) error {
		*r = rec
		return nil
	})
	swap(err == nil)
	if err != nil {
		return old, report, explain(object, err)
	}
	for _, v := range c.model.VPools() {
		if v.Backend.Store == kept.ID {
			c.schedule(ref{"vpool", v.ID}, 0) // it may have waited for this
			c.opt.Changed("vpool", v.ID)
		}
	}
	c.log.Info("backend changed", "backend", kept.Name, "vpools", len(users))
	c.tell(event.BackendChanged, remoteObject(kept.Name))
	return kept, report, nil
}

// visitRemote has the vPools on a remote store that another node changed go on with the new
// record; true: visit it again.
func (c *Controller) visitRemote(ctx context.Context, id string) bool {
	if err := c.remoteLock.acquire(ctx); err != nil {
		return true
	}
	defer c.remoteLock.release()
	r, ok := c.model.Remote(id)
	if !ok {
		return false
	}
	secret, err := c.openSecret(r)
	var swap func(bool)
	if err == nil {
		swap, err = c.openRemoteAgain(ctx, r, secret)
	}
	if err != nil {
		c.log.Warn("vPools go on with the former record of their backend", "backend", r.Name, "err", err)
		return true
	}
	swap(true)
	for _, v := range c.model.VPools() {
		if v.Backend.Store == id {
			c.schedule(ref{"vpool", v.ID}, 0) // it may have waited for this
		}
	}
	return false
}

// openRemoteAgain opens the stores of the attached vPools on a remote store with its new
// record and checks that they are the vPools'. The caller says whether they take the
// place of the present ones; until then none of its vPools is attached or detached.
func (c *Controller) openRemoteAgain(ctx context.Context, r model.Remote, secret string) (_ func(bool), err error) {
	type pair struct {
		p        *pool
		old, new backend.Store // nil: not attached
	}
	var pairs []pair
	swap := func(ok bool) {
		for _, x := range pairs {
			switch {
			case x.new == nil:
			case ok:
				c.opt.Backends.Swap(x.old, x.new)
			default:
				if err := x.new.Close(); err != nil {
					c.log.Warn("store not closed", "err", err)
				}
			}
			x.p.lock.release()
		}
	}
	defer func() {
		if err != nil {
			swap(false)
		}
	}()
	for _, v := range c.model.VPools() {
		if v.Backend.Store != r.ID || !c.reaches(v) {
			continue
		}
		p := c.pool(v.ID)
		if err := p.lock.acquire(ctx); err != nil {
			return nil, err
		}
		pairs = append(pairs, pair{p: p})
		if p.p == nil {
			continue // it is attached with the new record
		}
		place, err := c.place(v)
		if err != nil {
			return nil, err
		}
		place.Remote, place.Secret = r, secret
		s, err := c.opt.Backends.Open(ctx, place)
		if err != nil {
			return nil, err
		}
		x := &pairs[len(pairs)-1]
		x.old, x.new = p.store, s
		if err := c.sameRoot(ctx, s, v); err != nil {
			return nil, err
		}
	}
	return swap, nil
}

// sameRoot makes sure that a store holds a vPool.
func (c *Controller) sameRoot(ctx context.Context, s backend.Store, v model.VPool) error {
	root, err := c.opt.Backends.ReadRoot(ctx, s)
	if errors.Is(err, backend.ErrNotExist) || err == nil && root.VPool != v.ID {
		return &Error{Code: CodeForeignRoot, Object: vpoolObject(v.Name), Message: "its objects are not in the store at the new address", Hint: "name the place where they are; to take a vPool elsewhere, move its vDisks"}
	}
	return err
}

// DeleteRemote forgets a remote store that no vPool uses; an absent one is no error.
// Nothing at the store changes.
func (c *Controller) DeleteRemote(ctx context.Context, ref string) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	r, ok := c.model.FindRemote(ref)
	if !ok {
		return nil
	}
	if users := c.RemoteUsers(r.ID); len(users) > 0 {
		return &Error{Code: CodeInUse, Object: remoteObject(r.Name), Message: fmt.Sprintf("%d vPools are on it, %s for one", len(users), users[0]), Hint: "delete these vPools first"}
	}
	if err := c.remoteLock.acquire(ctx); err != nil {
		return explain(remoteObject(r.Name), err)
	}
	defer c.remoteLock.release()
	if err := c.model.DeleteRemote(ctx, r.ID); err != nil {
		return explain(remoteObject(r.Name), err)
	}
	c.log.Info("backend forgotten", "backend", r.Name)
	c.tell(event.BackendForgotten, remoteObject(r.Name))
	return nil
}

// place collects what it takes to open the store of a vPool.
func (c *Controller) place(v model.VPool) (Place, error) {
	p := Place{VPool: v.ID, Backend: v.Backend, New: v.State == model.StateCreating && !v.Adopt}
	if v.Backend.Store != "" {
		r, ok := c.model.Remote(v.Backend.Store)
		if !ok {
			return p, &Error{Code: CodeNotFound, Field: "backend.store", Message: "there is no such backend", Hint: "ovgate backend list shows those that are registered"}
		}
		secret, err := c.openSecret(r)
		if err != nil {
			return p, err
		}
		p.Remote, p.Secret = r, secret
	}
	if len(v.Key) > 0 {
		text, err := c.opt.Sealer.Open(v.ID, v.Key)
		if err != nil {
			return p, &Error{Code: CodeBackend, Message: "the vPool's key does not open with this node's seal.key", Hint: "bring seal.key back from a copy, or give the key: ovgate vpool recover " + v.Name + " --key-file FILE", Err: err}
		}
		key, err := encrypted.ParseKey(text)
		if err != nil {
			return p, err
		}
		p.Key = &key
	}
	return p, nil
}

// giveKey seals a key into the record of a vPool.
func (c *Controller) giveKey(v *model.VPool, key encrypted.Key) error {
	sealed, err := c.opt.Sealer.Seal(v.ID, key.Text())
	v.Key, v.KeyID = sealed, key.ID()
	return err
}

// drawKey gives a new vPool a key of its own.
func (c *Controller) drawKey(v *model.VPool) error {
	key, err := encrypted.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	return c.giveKey(v, key)
}

// parseKey reads a key that somebody gave; nil: none.
func parseKey(object, text string) (*encrypted.Key, *Error) {
	if text == "" {
		return nil, nil
	}
	k, err := encrypted.ParseKey(text)
	if err != nil {
		return nil, invalid("key", object, "give what ovgate vpool key printed", "%s", err)
	}
	return &k, nil
}

// VPoolKey returns the key that a vPool's objects are encrypted with, to be kept
// elsewhere: who recovers the vPool on another node needs it.
func (c *Controller) VPoolKey(name string) (id, text string, err error) {
	v, err := c.FindVPool(name)
	if err != nil {
		return "", "", err
	}
	object := vpoolObject(v.Name)
	if len(v.Key) == 0 {
		return "", "", &Error{Code: CodeNotFound, Object: object, Message: "its objects are not encrypted", Hint: "vPools are encrypted from their creation or not at all: ovgate vpool create --encrypt"}
	}
	p, err := c.place(v)
	if err != nil {
		return "", "", explain(object, err)
	}
	return p.Key.ID(), p.Key.Text(), nil
}

// rekey gives a vPool its key again, on a node that lost seal.key. The store says
// whether it is the right one.
func (c *Controller) rekey(ctx context.Context, v model.VPool, key encrypted.Key) (model.VPool, error) {
	if v.KeyID != key.ID() {
		return v, invalid("key", vpoolObject(v.Name), "give the key with this id", "its objects are encrypted with key %s, this is key %s", v.KeyID, key.ID())
	}
	v, err := c.model.UpdateVPool(ctx, v.ID, func(v *model.VPool) error { return c.giveKey(v, key) })
	if err != nil {
		return v, err
	}
	p := c.pool(v.ID)
	if err := p.lock.acquire(ctx); err != nil {
		return v, err
	}
	defer p.lock.release()
	return v, c.attach(ctx, p, v)
}
