package vsphere

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// hostGroup is the group of a cluster's target that has its hosts.
const hostGroup = "hosts"

// targetName is the name of the shared target of a cluster.
func targetName(c model.Center, cluster string) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '.'
	}, cluster)
	const most = 32
	return "vsphere-" + c.ID[:8] + "-" + safe[:min(len(safe), most)]
}

// chapUser is what the hosts of a vCenter prove to be.
func chapUser(c model.Center) string { return "ovgate-" + c.ID[:8] }

// mutualUser is what their target proves to be.
func mutualUser(c model.Center) string { return chapUser(c) + "-target" }

// secrets say what of the CHAP secrets of a cluster is made anew.
type secrets int

const (
	keepSecrets   secrets = iota // what is there
	setSecrets                   // what is there is set again
	rotateSecrets                // new ones
)

// credentials returns what the hosts of a cluster and its target prove. The first time, and to
// rotate them, they are drawn and stored before anybody is told of them.
func (m *Manager) credentials(ctx context.Context, center, id, name string, how secrets) (t vsphere.Target, _ error) {
	chap, mutual := rand.Text(), rand.Text()
	c, err := m.model.UpdateCenter(ctx, center, func(c *model.Center) error {
		if c.Cluster(id) == nil {
			c.Clusters = append(c.Clusters, model.CenterCluster{ID: id, Name: name, CHAPUser: chapUser(*c)})
		}
		cl := c.Cluster(id)
		var err, merr error
		if cl.CHAPSecret == nil || how == rotateSecrets {
			cl.CHAPSecret, err = m.opt.Sealer.Seal(c.ID, chap)
		}
		if c.Spec.Mutual && cl.MutualSecret == nil || cl.MutualSecret != nil && how == rotateSecrets {
			cl.MutualUser = mutualUser(*c)
			cl.MutualSecret, merr = m.opt.Sealer.Seal(c.ID, mutual)
		}
		return errors.Join(err, merr)
	})
	if err != nil {
		return t, err
	}
	cl := c.Cluster(id)
	t.CHAPUser = cl.CHAPUser
	t.CHAPSecret, err = m.opt.Sealer.Open(c.ID, cl.CHAPSecret)
	if err == nil && c.Spec.Mutual {
		t.MutualUser = cl.MutualUser
		t.MutualSecret, err = m.opt.Sealer.Open(c.ID, cl.MutualSecret)
	}
	if err != nil {
		return t, &control.Error{Code: control.CodeBackend, Object: centerObject(c.Name), Message: "the CHAP secret of cluster " + cl.Name + " does not open with this node's seal.key", Hint: "bring back seal.key", Err: err}
	}
	return t, nil
}

// ensureTarget makes the shared target of a cluster, with its group, and returns it. The target
// proves itself before hosts ask for it, and also when they do no more.
func (m *Manager) ensureTarget(ctx context.Context, c model.Center, cluster, clusterName string, how secrets) (control.Target, vsphere.Target, error) {
	m.targetLock.Lock()
	defer m.targetLock.Unlock()
	var out vsphere.Target
	name := targetName(c, cluster)
	t, err := m.ctl.FindTarget(name)
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeNotFound {
		t, err = m.ctl.CreateTarget(ctx, name, "", "")
	}
	if err != nil {
		return t, out, err
	}
	if out, err = m.credentials(ctx, c.ID, cluster, clusterName, how); err != nil {
		return t, out, err
	}
	change := control.GroupChange{User: &out.CHAPUser, Secret: &out.CHAPSecret}
	if out.MutualUser != "" {
		change.MutualUser, change.MutualSecret = &out.MutualUser, &out.MutualSecret
	}
	var r control.GroupResult
	switch g := t.Access.Group(hostGroup); {
	case g == nil:
		r, err = m.ctl.CreateGroup(ctx, name, hostGroup, change)
	case how != keepSecrets || out.MutualUser != "" && g.MutualUser != out.MutualUser:
		r, err = m.ctl.UpdateGroup(ctx, name, hostGroup, change) // sessions stay
	default:
		r.Target = t
	}
	if err != nil {
		return t, out, err
	}
	t = r.Target
	if now, ok := m.model.FindCenter(c.ID); !ok || now.Cluster(cluster) == nil || now.Cluster(cluster).Target != t.ID {
		_, err = m.model.UpdateCenter(ctx, c.ID, func(c *model.Center) error { c.Cluster(cluster).Target = t.ID; return nil })
	}
	for _, p := range m.ctl.TargetPortals(t) {
		out.Portals = append(out.Portals, p.Address)
	}
	return t, out, err
}

// admit lets hosts in to a cluster's target, by their iSCSI names.
func (m *Manager) admit(ctx context.Context, t control.Target, names []string) error {
	m.targetLock.Lock()
	defer m.targetLock.Unlock()
	t, err := m.ctl.FindTarget(t.Name) // another job may have admitted them
	if err != nil {
		return err
	}
	g := t.Access.Group(hostGroup)
	var add []string
	for _, n := range names {
		if g == nil || !slices.Contains(g.Initiators, strings.ToLower(n)) {
			add = append(add, n)
		}
	}
	if len(add) == 0 {
		return nil
	}
	_, err = m.ctl.UpdateGroup(ctx, t.Name, hostGroup, control.GroupChange{Add: add})
	return err
}
