package vsphere

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// mutual has the hosts of the vCenter demand that the target proves itself, or not.
func (l *lab) mutual(on bool) {
	l.t.Helper()
	r, err := client.Get[client.CenterResult](l.api.UpdateCenter(l.t.Context(), "dc", client.CenterPatch{Options: &client.CenterOptionsInput{MutualChap: &on}}))
	if err != nil || r.Center.Options.MutualChap != on {
		l.t.Fatal(r.Center.Options, err)
	}
}

// prepare prepares the hosts, and returns what was done, in words.
func (l *lab) prepare(in client.PrepareInput) (string, error) {
	in.Cluster = new(esxsim.Cluster)
	p, err := client.Get[client.HostPlan](l.api.PrepareCenterHosts(l.t.Context(), "dc", in))
	return fmt.Sprint(p.Actions), err
}

// refusal waits until the datastore's host tells why its login was refused.
func (l *lab) refusal(datastore, host, words string) {
	l.t.Helper()
	l.until(fmt.Sprintf("%s is refused: %s", host, words), func() error {
		x, err := client.Get[client.DatastoreLive](l.api.LookAtDatastore(l.t.Context(), datastore))
		if err != nil {
			return err
		}
		for _, h := range x.Hosts {
			if h.Host == host && strings.Contains(h.Refused, words) {
				return nil
			}
		}
		return fmt.Errorf("hosts are %+v", x.Hosts)
	})
}

// allUp wants all hosts to have a datastore, with a path.
func (l *lab) allUp(when, name string) {
	l.t.Helper()
	for _, h := range l.live(name).Hosts {
		if !h.Accessible || len(h.Paths) != 1 || h.Paths[0].State != "active" {
			l.t.Errorf("%s, on %s it is %+v", when, h.Host, h)
		}
	}
}

// TestMutual: hosts demand that the target proves itself. A secret that is wrong on either side
// is told of by the job and with the host; new secrets leave sessions alone.
func TestMutual(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	l.mutual(true)
	// Somebody gives one host another secret of the target, later one of its own.
	const wrong = "not-what-it-should-be"
	spoil := func(change func(*types.HostInternetScsiHbaAuthenticationProperties)) {
		l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
			if c.Host != "DC0_C0_H1" {
				return nil
			}
			switch r := c.Body.(type) {
			case *types.AddInternetScsiSendTargets:
				for i := range r.Targets {
					change(r.Targets[i].AuthenticationProperties)
				}
			case *types.UpdateInternetScsiAuthenticationProperties:
				change(&r.AuthenticationProperties)
			}
			return nil
		})
	}
	spoil(func(a *types.HostInternetScsiHbaAuthenticationProperties) { a.MutualChapSecret = wrong })
	l.create("gold")
	l.failing("gold", "DC0_C0_H1", "another mutual secret", "host prepare")
	l.refusal("gold", "DC0_C0_H1", "another mutual secret")
	spoil(func(a *types.HostInternetScsiHbaAuthenticationProperties) { a.ChapSecret = wrong })
	if _, err := l.prepare(client.PrepareInput{}); err != nil {
		t.Fatal(err)
	}
	l.failing("gold", "DC0_C0_H1", "authentication failed", "host prepare")
	l.refusal("gold", "DC0_C0_H1", "authentication failed")
	if d, err := l.get("gold"); err != nil || d.Volume != "" {
		t.Errorf("a LUN that one host does not see is formatted: %+v %v", d, err)
	}
	l.v.Before(nil)
	if done, err := l.prepare(client.PrepareInput{}); err != nil || !strings.Contains(done, "mutual CHAP of send target") {
		t.Fatal(done, err)
	}
	l.settled("gold")
	l.allUp("made", "gold")
	list, err := client.Get[client.TargetList](l.api.ListTargets(t.Context(), nil))
	if err != nil || len(list.Items) != 1 {
		t.Fatal(list, err)
	}
	for _, g := range list.Items[0].Groups {
		if g.Name == "hosts" && (g.ChapUser == "" || g.MutualUser != g.ChapUser+"-target") {
			t.Errorf("the group is %+v", g)
		}
	}

	// New secrets: a plan changes nothing; sessions stay; the next logins use them.
	data, got := bytes.Repeat([]byte{9}, 4096), make([]byte, 4096)
	if err := l.v.Host(0).WriteAt("gold", data, 0); err != nil {
		t.Fatal(err)
	}
	logins := l.v.Logins()
	if plan, err := l.prepare(client.PrepareInput{RotateSecrets: new(true), DryRun: new(true)}); err != nil || !strings.Contains(plan, "DC0_C0_H1") {
		t.Fatal(plan, err)
	}
	l.v.SetDown(l.v.Host(1), true)
	_, err = l.prepare(client.PrepareInput{RotateSecrets: new(true)})
	refused(t, err, "backend_unavailable", "DC0_C0_H1 is notResponding", "bring it back")
	l.v.SetDown(l.v.Host(1), false)
	l.v.SetMaintenance(l.v.Host(1), true) // it has sessions all the same
	if done, err := l.prepare(client.PrepareInput{RotateSecrets: new(true)}); err != nil || !strings.Contains(done, "DC0_C0_H1") {
		t.Fatal(done, err)
	}
	l.v.SetMaintenance(l.v.Host(1), false)
	if n := l.v.Logins(); n != logins {
		t.Errorf("with new secrets hosts logged in %d times", n-logins)
	}
	l.allUp("with new secrets", "gold")
	l.v.DropSessions()
	l.until("logged in with new secrets", func() error {
		if n := l.v.Logins(); n < logins+2 {
			return fmt.Errorf("%d logins", n-logins)
		}
		return nil
	})
	l.used("read with new secrets", func() error { return l.v.Host(1).ReadAt("gold", got, 0) })
	if !bytes.Equal(got, data) {
		t.Error("other data are read")
	}

	// The node is killed when the secrets are drawn and one host has them; it is done again.
	k := l.killAt("UpdateInternetScsiAuthenticationProperties")
	_, err = l.prepare(client.PrepareInput{RotateSecrets: new(true)})
	l.asked(err)
	l.restarted(k)
	if done, err := l.prepare(client.PrepareInput{}); err != nil || !strings.Contains(done, "DC0_C0_H0") || !strings.Contains(done, "DC0_C0_H1") {
		t.Fatal(done, err)
	}
	l.used("read after a kill", func() error { return l.v.Host(0).ReadAt("gold", got, 0) })

	// Without it hosts ask no more, and the target does as before.
	l.mutual(false)
	if done, err := l.prepare(client.PrepareInput{}); err != nil || strings.Contains(done, "mutual") {
		t.Fatal(done, err)
	}
	l.v.DropSessions()
	l.used("read without mutual CHAP", func() error {
		return errors.Join(l.v.Host(0).ReadAt("gold", got, 0), l.v.Host(1).ReadAt("gold", got, 0))
	})
	if err := l.remove("gold"); err != nil {
		t.Fatal(err)
	}
	l.gone("gold")
}
