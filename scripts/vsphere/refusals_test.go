package vsphere

import (
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// TestCenter: what cannot be is refused with its field and remedy, and registers nothing;
// the certificate is pinned; a vCenter that restarts, and sessions that expire, are no
// obstacle.
func TestCenter(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 1, Password: "secret-of-the-center"})
	other := strings.Repeat("00:", 31) + "00"
	for _, c := range []struct {
		what  string
		in    client.CenterInput
		code  string
		words []string
	}{
		{"a wrong password", client.CenterInput{Name: "x", Options: client.CenterOptionsInput{URL: new(l.v.URL()), User: new(l.v.User())}, Secret: new("secret-of-nobody")}, "invalid", []string{"secret", "--secret-stdin"}},
		{"no password", client.CenterInput{Name: "x", Options: client.CenterOptionsInput{URL: new(l.v.URL()), User: new(l.v.User())}}, "invalid", []string{"missing"}},
		{"another certificate", client.CenterInput{Name: "x", Options: client.CenterOptionsInput{URL: new(l.v.URL()), User: new(l.v.User()), Thumbprint: &other}, Secret: new(l.v.Password())}, "invalid", []string{"thumbprint", l.v.Thumbprint()}},
		{"no thumbprint", client.CenterInput{Name: "x", Options: client.CenterOptionsInput{URL: new(l.v.URL()), User: new(l.v.User()), Thumbprint: new("abc")}, Secret: new(l.v.Password())}, "invalid", []string{"64 hexadecimal digits"}},
		{"plain http", client.CenterInput{Name: "x", Options: client.CenterOptionsInput{URL: new("http://127.0.0.1:1"), User: new("x")}, Secret: new("x")}, "invalid", []string{"https"}},
		{"a user in the URL", client.CenterInput{Name: "x", Options: client.CenterOptionsInput{URL: new("https://u:secret-of-u@127.0.0.1:1"), User: new("x")}, Secret: new("x")}, "invalid", []string{"apart from it"}},
		{"nobody there", client.CenterInput{Name: "x", Options: client.CenterOptionsInput{URL: new("https://127.0.0.1:1"), User: new("x")}, Secret: new("x")}, "backend_unavailable", []string{"no answer"}},
		{"a name that is taken", client.CenterInput{Name: "dc", Options: client.CenterOptionsInput{URL: new(l.v.URL()), User: new(l.v.User())}, Secret: new(l.v.Password())}, "exists", nil},
		{"a bad name", client.CenterInput{Name: "-x", Options: client.CenterOptionsInput{URL: new(l.v.URL()), User: new(l.v.User())}, Secret: new(l.v.Password())}, "invalid", nil},
	} {
		_, err := client.Get[client.CenterResult](l.api.CreateCenter(t.Context(), nil, c.in))
		t.Log(c.what)
		refused(t, err, c.code, c.words...)
	}
	c, err := client.Get[client.Center](l.api.GetCenter(t.Context(), "dc"))
	if err != nil || c.Options.Thumbprint != l.v.Thumbprint() || c.Kind != "vcenter" || c.Hosts != 1 || !c.HasSecret {
		t.Errorf("%+v %v", c, err)
	}
	_, err = client.Get[client.CenterResult](l.api.UpdateCenter(t.Context(), "dc", client.CenterPatch{Options: &client.CenterOptionsInput{URL: new("https://127.0.0.2:1")}}))
	refused(t, err, "invalid", "given again")

	steps := func() map[string]bool {
		t.Helper()
		r, err := client.Get[client.CenterResult](l.api.TestCenter(t.Context(), "dc"))
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]bool{}
		for _, s := range r.Steps {
			out[s.Step] = s.Ok
		}
		return out
	}
	if s := steps(); len(s) != 4 || !s["sign in"] || !s["hosts"] || !s["privileges"] || !s["version"] {
		t.Errorf("the steps are %v", s)
	}
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "HasPrivilegeOnEntities" {
			l.v.Before(nil)
			l.v.ExpireSessions()
		}
		return nil
	})
	if s := steps(); len(s) != 4 || !s["hosts"] {
		t.Errorf("after the session expired the steps are %v", s)
	}
	l.v.Stop()
	if s := steps(); s["sign in"] {
		t.Errorf("without a vCenter the steps are %v", s)
	}
	if err := l.v.Resume(); err != nil {
		t.Fatal(err)
	}
	if s := steps(); !s["hosts"] {
		t.Errorf("after a restart the steps are %v", s)
	}
}

// TestDatastoreRefused: bad requests change nothing; a name that somebody took at the
// vCenter, and a datastore with virtual machines, are left alone.
func TestDatastoreRefused(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	good := client.DatastoreInput{Name: "gold", Center: "dc", Cluster: new(esxsim.Cluster), VPool: pool, Size: 2 * gib}
	with := func(change func(*client.DatastoreInput)) client.DatastoreInput {
		in := good
		change(&in)
		return in
	}
	for _, c := range []struct {
		in    client.DatastoreInput
		code  string
		words []string
	}{
		{with(func(in *client.DatastoreInput) { in.Size = gib }), "invalid", []string{"2 GiB"}},
		{with(func(in *client.DatastoreInput) { in.Size = 65 << 40 }), "invalid", []string{"64 TiB"}},
		{with(func(in *client.DatastoreInput) { in.Size++ }), "invalid", []string{"whole MiB"}},
		{with(func(in *client.DatastoreInput) { in.Name = "a/b" }), "invalid", nil},
		{with(func(in *client.DatastoreInput) { in.Center = "nowhere" }), "not_found", []string{"center list"}},
		{with(func(in *client.DatastoreInput) { in.Cluster = new("nowhere") }), "not_found", []string{"host list"}},
		{with(func(in *client.DatastoreInput) { in.Cluster = nil }), "invalid", []string{"cluster"}},
		{with(func(in *client.DatastoreInput) { in.VPool = "nowhere" }), "not_found", []string{"vpool"}},
		{with(func(in *client.DatastoreInput) { in.Name = "LocalDS_0" }), "exists", []string{"vCenter dc"}},
	} {
		_, err := client.Get[client.DatastoreResult](l.api.CreateDatastore(t.Context(), nil, c.in))
		refused(t, err, c.code, c.words...)
	}
	l.v.SetMaintenance(l.v.Host(0), true)
	l.v.SetDown(l.v.Host(1), true)
	_, err := client.Get[client.DatastoreResult](l.api.CreateDatastore(t.Context(), nil, good))
	refused(t, err, "backend_unavailable", "maintenance mode", "notResponding")
	if list, err := client.Get[client.DatastoreList](l.api.ListDatastores(t.Context(), nil)); err != nil || len(list.Items) != 0 {
		t.Errorf("refusals leave %v %v", list.Items, err)
	}
	l.v.SetMaintenance(l.v.Host(0), false)

	// A host that is away is left out, told, and gets it when it is back.
	l.create("gold")
	l.settled("gold")
	x := l.live("gold")
	if x.Hosts[1].Mounted || x.Hosts[1].Away == "" || !x.Hosts[0].Mounted {
		t.Errorf("with a host away it is %+v", x.Hosts)
	}
	l.v.SetDown(l.v.Host(1), false)
	if _, err := client.Get[client.Datastore](l.api.AttachDatastore(t.Context(), "gold")); err != nil {
		t.Fatal(err)
	}
	l.settled("gold")
	if x = l.live("gold"); !x.Hosts[1].Accessible || x.Hosts[1].Policy != "VMW_PSP_RR" {
		t.Errorf("attached it is %+v", x.Hosts)
	}

	// A host that has it and is away holds up what would hurt it.
	l.v.SetDown(l.v.Host(1), true)
	if _, err := client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "gold", client.ExpandInput{Size: 3 * gib})); err != nil {
		t.Fatal(err)
	}
	l.failing("gold", "DC0_C0_H1", "notResponding", "bring the host back")
	_, err = client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "gold", client.ExpandInput{Size: 4 * gib}))
	refused(t, err, "in_use", "expand")
	l.v.SetDown(l.v.Host(1), false)
	if d := l.settled("gold"); d.Size != 3*gib {
		t.Errorf("grown it is %+v", d)
	}
	l.v.SetDown(l.v.Host(1), true)
	if err := l.remove("gold"); err != nil {
		t.Fatal(err)
	}
	l.failing("gold", "DC0_C0_H1")
	if x := l.live("gold"); !x.Hosts[0].Accessible {
		t.Errorf("a removal that is held up leaves %+v", x.Hosts)
	}
	l.v.SetDown(l.v.Host(1), false)
	l.gone("gold")
}
