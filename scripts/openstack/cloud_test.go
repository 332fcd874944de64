package openstack

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/attachments"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

const (
	// pollInterval is how often Cinder is asked whether it is done.
	pollInterval = 100 * time.Millisecond
	// pollMax is the most that passes between two questions.
	pollMax = 10 * time.Second
	// patience bounds an operation, far above what it takes on a busy machine.
	patience = 3 * time.Minute
	// microversion is the newest of Zed.
	microversion = "3.70"
	gib          = 1 << 30
)

// Volume types: fast and plain are one vPool each, shared is any of them.
const shared = "shared"

// fakeSection is Cinder's own driver that does nothing.
const fakeSection = `[fake]
volume_driver = cinder.tests.fake_driver.FakeLoggingVolumeDriver
volume_backend_name = fake
`

// cloud is OpenStack as one of its users sees it.
type cloud struct {
	block, image *gophercloud.ServiceClient
	project      string // id
	env          []string
	patience     time.Duration // for its volumes; 0: patience
}

// cloud logs in as the user whose name, password and project have these keys in what the
// peer said.
func (l *lab) cloud(user, password, project string) (*cloud, error) {
	said := l.cinder.Said
	opts := gophercloud.AuthOptions{IdentityEndpoint: said["auth"], Username: said[user], Password: said[password],
		DomainName: said["domain"], AllowReauth: true,
		Scope: &gophercloud.AuthScope{ProjectName: said[project], DomainName: said["domain"]}}
	p, err := openstack.AuthenticatedClient(l.ctx, opts)
	if err != nil {
		return nil, err
	}
	where := gophercloud.EndpointOpts{Region: said["region"]}
	c := &cloud{env: []string{"OS_AUTH_URL=" + said["auth"], "OS_USERNAME=" + said[user], "OS_PASSWORD=" + said[password],
		"OS_PROJECT_NAME=" + said[project], "OS_USER_DOMAIN_NAME=" + said["domain"], "OS_PROJECT_DOMAIN_NAME=" + said["domain"],
		"OS_REGION_NAME=" + said["region"], "OS_IDENTITY_API_VERSION=3"}}
	if c.block, err = openstack.NewBlockStorageV3(p, where); err != nil {
		return nil, err
	}
	c.block.Microversion = microversion
	c.project = c.block.Endpoint[strings.LastIndex(strings.TrimSuffix(c.block.Endpoint, "/"), "/")+1 : len(c.block.Endpoint)-1]
	c.image, err = openstack.NewImageV2(p, where)
	return c, err
}

// types makes the volume types.
func (l *lab) types() error {
	public := true
	for name, specs := range map[string]map[string]string{
		fast:   {"volume_backend_name": backend, "pool_name": fast, "multiattach": "<is> True"},
		plain:  {"volume_backend_name": backend, "pool_name": plain},
		shared: {"volume_backend_name": backend},
		"fake": {"volume_backend_name": "fake"},
	} {
		if _, err := volumetypes.Create(l.ctx, l.admin.block, volumetypes.CreateOpts{Name: name, IsPublic: &public, ExtraSpecs: specs}).Extract(); err != nil {
			return fmt.Errorf("volume type %s: %w", name, err)
		}
	}
	return nil
}

// until polls until done says so; its error is final.
func until(what string, done func(ctx context.Context) (bool, error)) error {
	return within(patience, what, done)
}

// within is until with a limit of its own. Whoever answers slowly is asked less often.
func within(limit time.Duration, what string, done func(ctx context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(l.ctx, limit)
	defer cancel()
	for {
		begin := time.Now()
		ok, err := done(ctx)
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(max(pollInterval, min(4*time.Since(begin), pollMax))):
		}
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func gone(err error) bool { return gophercloud.ResponseCodeIs(err, http.StatusNotFound) }

// waitVolume waits until a volume has a status; one of error ends the wait.
func (c *cloud) waitVolume(id, status string) (*volumes.Volume, error) {
	var v *volumes.Volume
	err := within(cmp.Or(c.patience, patience), "volume "+id+" is not "+status, func(ctx context.Context) (bool, error) {
		var err error
		if v, err = volumes.Get(ctx, c.block, id).Extract(); err != nil {
			return false, err
		}
		if v.Status != status && strings.HasPrefix(v.Status, "error") {
			return false, fmt.Errorf("volume %s is %s, not %s: %s", id, v.Status, status, c.messages(ctx, id))
		}
		return v.Status == status, nil
	})
	return v, err
}

// messages are what Cinder tells a user of what went wrong with an object.
func (c *cloud) messages(ctx context.Context, id string) string {
	var answer struct {
		Messages []struct {
			Text string `json:"user_message"`
		} `json:"messages"`
	}
	if err := c.get(ctx, "messages?resource_uuid="+id, &answer); err != nil {
		return err.Error()
	}
	var texts []string
	for _, m := range answer.Messages {
		texts = append(texts, m.Text)
	}
	return strings.Join(texts, "; ")
}

func (c *cloud) get(ctx context.Context, where string, answer any) error {
	_, err := c.block.Get(ctx, c.block.ServiceURL(where), answer, nil)
	return err
}

// post sends what gophercloud has no call for.
func (c *cloud) post(where string, body map[string]any, answer any) error {
	_, err := c.block.Post(l.ctx, c.block.ServiceURL(where), body, answer, &gophercloud.RequestOpts{OkCodes: []int{200, 202, 204}})
	if err != nil {
		return fmt.Errorf("POST %s: %w", where, err)
	}
	return nil
}

func (c *cloud) tryCreate(opts volumes.CreateOptsBuilder) (*volumes.Volume, error) {
	v, err := volumes.Create(l.ctx, c.block, opts, nil).Extract()
	if err != nil {
		return nil, err
	}
	return c.waitVolume(v.ID, "available")
}

func (c *cloud) create(t *testing.T, opts volumes.CreateOptsBuilder) *volumes.Volume {
	t.Helper()
	v, err := c.tryCreate(opts)
	ok(t, err)
	return v
}

// extend has a volume of a status grow to gibs GiB, and waits for that.
func (c *cloud) extend(id string, gibs int, status string) error {
	if err := volumes.ExtendSize(l.ctx, c.block, id, volumes.ExtendSizeOpts{NewSize: gibs}).ExtractErr(); err != nil {
		return err
	}
	_, err := c.waitVolume(id, status)
	return err
}

func (c *cloud) tryDelete(id string) error {
	if err := volumes.Delete(l.ctx, c.block, id, nil).ExtractErr(); err != nil && !gone(err) {
		return err
	}
	return within(cmp.Or(c.patience, patience), "volume "+id+" is not gone", func(ctx context.Context) (bool, error) {
		v, err := volumes.Get(ctx, c.block, id).Extract()
		if gone(err) {
			return true, nil
		}
		if err == nil && strings.HasPrefix(v.Status, "error") {
			err = fmt.Errorf("volume %s is %s: %s", id, v.Status, c.messages(ctx, id))
		}
		return false, err
	})
}

func (c *cloud) delete(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		ok(t, c.tryDelete(id))
	}
}

func (c *cloud) waitSnapshot(id, status string) error {
	return until("snapshot "+id+" is not "+status, func(ctx context.Context) (bool, error) {
		s, err := snapshots.Get(ctx, c.block, id).Extract()
		if err == nil && s.Status != status && strings.HasPrefix(s.Status, "error") {
			err = fmt.Errorf("snapshot %s is %s: %s", id, s.Status, c.messages(ctx, id))
		}
		return err == nil && s.Status == status, err
	})
}

func (c *cloud) trySnapshot(volume string) (string, error) {
	s, err := snapshots.Create(l.ctx, c.block, snapshots.CreateOpts{VolumeID: volume, Name: "s"}).Extract()
	if err != nil {
		return "", err
	}
	return s.ID, c.waitSnapshot(s.ID, "available")
}

func (c *cloud) snapshot(t *testing.T, volume string) string {
	t.Helper()
	id, err := c.trySnapshot(volume)
	ok(t, err)
	return id
}

func (c *cloud) tryDeleteSnapshot(id string) error {
	if err := snapshots.Delete(l.ctx, c.block, id).ExtractErr(); err != nil && !gone(err) {
		return err
	}
	return c.waitSnapshotGone(id)
}

func (c *cloud) waitSnapshotGone(id string) error {
	return until("snapshot "+id+" is not gone", func(ctx context.Context) (bool, error) {
		s, err := snapshots.Get(ctx, c.block, id).Extract()
		if gone(err) {
			return true, nil
		}
		if err == nil && strings.HasPrefix(s.Status, "error") {
			err = fmt.Errorf("snapshot %s is %s: %s", id, s.Status, c.messages(ctx, id))
		}
		return false, err
	})
}

func (c *cloud) deleteSnapshot(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		ok(t, c.tryDeleteSnapshot(id))
	}
}

// attachment is a volume at a host.
type attachment struct {
	c      *cloud
	volume string
	id     string
	server string
	iqn    string         // of the host
	info   map[string]any // how to connect
	where  lun.Address    // the same, once it was asked for
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it does not fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// tryAttach does what Nova does for a server on a host: an attachment with the host's
// connector, and its completion.
func (c *cloud) tryAttach(volume, host string) (*attachment, error) {
	return c.tryAttachTo(volume, map[string]any{"initiator": "iqn.2026-01.org.openvstorage:" + host, "host": host, "ip": "127.0.0.1",
		"multipath": true, "os_type": "linux", "platform": "x86_64"})
}

// tryAttachTo does so for the host that has a connector.
func (c *cloud) tryAttachTo(volume string, connector map[string]any) (*attachment, error) {
	server, iqn := uuid(), fmt.Sprint(connector["initiator"])
	made, err := attachments.Create(l.ctx, c.block, attachments.CreateOpts{VolumeUUID: volume, InstanceUUID: server, Connector: connector}).Extract()
	if err != nil {
		return nil, err
	}
	a := &attachment{c: c, volume: volume, id: made.ID, server: server, iqn: iqn, info: made.ConnectionInfo}
	return a, attachments.Complete(l.ctx, c.block, made.ID).ExtractErr()
}

func (c *cloud) attach(t *testing.T, volume, host string) *attachment {
	t.Helper()
	a, err := c.tryAttach(volume, host)
	ok(t, err)
	a.connect(t)
	return a
}

// connect reads how to connect.
func (a *attachment) connect(t *testing.T) {
	t.Helper()
	var err error
	a.where, err = address(a.info)
	ok(t, err)
	a.where.Initiator = a.iqn
}

func (a *attachment) detach() error {
	return attachments.Delete(l.ctx, a.c.block, a.id).ExtractErr()
}

// address reads the connection information that Cinder gives a host.
func address(info map[string]any) (lun.Address, error) {
	text := func(key string) string { s, _ := info[key].(string); return s }
	portals, _ := info["target_portals"].([]any)
	number, isNumber := info["target_lun"].(float64)
	if text("driver_volume_type") != "iscsi" || text("target_iqn") == "" || text("auth_password") == "" || len(portals) < 2 || !isNumber {
		return lun.Address{}, errors.New("the connection information is not that of a LUN with CHAP and two portals")
	}
	return lun.Address{Portal: l.local(text("target_portal")), IQN: text("target_iqn"), LUN: uint16(number),
		User: text("auth_username"), Secret: text("auth_password")}, nil
}

// use attaches a volume, hands its LUN over, and detaches it.
func (c *cloud) use(t *testing.T, volume string, do func(d *lun.LUN)) {
	t.Helper()
	a := c.attach(t, volume, "host1")
	a.use(t, do)
	ok(t, a.detach())
	_, err := c.waitVolume(volume, "available")
	ok(t, err)
}

func (a *attachment) use(t *testing.T, do func(d *lun.LUN)) {
	t.Helper()
	d, err := lun.Dial(l.ctx, a.where)
	ok(t, err)
	do(d)
	ok(t, d.Close())
}

// refused logs in once as a host that may not any more. lun.Dial would wait for a target
// that is gone.
func refused(t *testing.T, a lun.Address) {
	t.Helper()
	s, err := initiator.Dial(l.ctx, initiator.Options{Address: a.Portal, Target: a.IQN, Initiator: a.Initiator, CHAPUser: a.User, CHAPSecret: a.Secret})
	if err == nil {
		s.Close()
	}
	var no *initiator.LoginError
	if !errors.As(err, &no) {
		t.Errorf("the login of a host that was detached ended with %v", err)
	}
}

// vdisk is what stands behind a volume; nil when there is none.
func (l *lab) vdisk(name string) (*client.VDisk, error) {
	d, err := client.Get[client.VDisk](l.api.GetVDisk(l.ctx, name))
	var refused *client.APIError
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	return &d, err
}

// getJSON asks one of the peers.
func getJSON(ctx context.Context, url string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
