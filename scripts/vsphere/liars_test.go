package vsphere

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// Operation codes and places of what the liars change.
const (
	opInquiry      = 0x12
	opCompareWrite = 0x89
	opWrite        = 0x8a
	opServiceIn    = 0x9e // READ CAPACITY(16)
	headerLBA      = 2048 // of a volume of esxsim
	elsewhereLBA   = 1 << 20
	noLUN          = 200
)

// liar stands between hosts and target, and tells the truth while lie is nil.
type liar struct {
	mu    sync.Mutex
	lie   func(*esxsim.Exchange)
	reach func(host, portal string) bool
}

func (l *liar) between(x *esxsim.Exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lie != nil {
		l.lie(x)
	}
}

func (l *liar) reaches(host, portal string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reach == nil || l.reach(host, portal)
}

func (l *liar) set(lie func(*esxsim.Exchange), reach func(host, portal string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie, l.reach = lie, reach
}

// secondPortal returns an address that nobody listens on.
func secondPortal(t *testing.T) string {
	t.Helper()
	a, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// otherName changes the NAA designator in an answer to INQUIRY for VPD 83.
func otherName(data []byte) {
	for rest := data[min(4, len(data)):]; len(rest) >= 4 && len(rest) >= 4+int(rest[3]); rest = rest[4+int(rest[3]):] {
		if n := int(rest[3]); rest[1]&0x3f == 3 && n > 0 { // of the logical unit, NAA
			rest[3+n] ^= 0xff
		}
	}
}

// TestLiars: a target that lies, or what is between it and a host, stops a job with words
// that name host and cause, before anything is lost, and beside a datastore that goes on. The
// job ends well when the lies do.
func TestLiars(t *testing.T) {
	between, second := &liar{}, secondPortal(t)
	l := start(t, esxsim.Options{Hosts: 2, Between: between.between, Reach: between.reaches}, "--iscsi", second)
	l.create("other")
	if d := l.settled("other"); len(l.live("other").Hosts[0].Paths) != 2 {
		t.Errorf("with two portals it is %+v", l.live(d.Name).Hosts[0])
	}
	capacity := func(bytes int64) func(*esxsim.Exchange) {
		return func(x *esxsim.Exchange) {
			if x.CDB[0] == opServiceIn && len(x.Data) >= 8 {
				last := binary.BigEndian.Uint64(x.Data)
				binary.BigEndian.PutUint64(x.Data, last+uint64(bytes/initiator.BlockSize))
			}
		}
	}
	for _, c := range []struct {
		name  string
		at    string // the method from which on it lies; empty: from the beginning
		lie   func(*esxsim.Exchange)
		reach func(host, portal string) bool
		words []string
	}{
		{name: "dropped", at: "CreateVmfsDatastore", lie: func(x *esxsim.Exchange) {
			if x.Asked && x.CDB[0] == opWrite && binary.BigEndian.Uint64(x.CDB[2:]) == headerLBA {
				binary.BigEndian.PutUint64(x.CDB[2:], elsewhereLBA)
			}
		}, words: []string{"DC0_C0_H0", "does not return what was written", "look at the tasks"}},
		{name: "always-same", lie: func(x *esxsim.Exchange) {
			if x.CDB[0] == opCompareWrite && x.Ended {
				x.Status, x.Sense = initiator.Good, [3]byte{}
			}
		}, words: []string{"DC0_C0_H0", "does not do COMPARE AND WRITE"}},
		{name: "miscompares", at: "CreateVmfsDatastore", lie: func(x *esxsim.Exchange) {
			if x.Asked && x.CDB[0] == opCompareWrite { // compared with what is the other datastore's
				x.LUN = 0
				binary.BigEndian.PutUint64(x.CDB[2:], headerLBA)
			}
		}, words: []string{"DC0_C0_H0", "locked", "e/1d/00"}},
		{name: "names", lie: func(x *esxsim.Exchange) {
			if x.Portal == second && x.CDB[0] == opInquiry && x.CDB[2] == 0x83 && x.LUN != 0 {
				otherName(x.Data)
			}
		}, words: []string{"DC0_C0_H", "at " + second + " is naa.", ", not naa.", "another disk", "nothing between"}},
		{name: "larger", lie: capacity(1 << 30), words: []string{"takes LUN naa.", "and it has 2147483648", "nothing between"}},
		{name: "smaller", lie: capacity(-1 << 30), words: []string{"takes LUN naa.", "and it has 2147483648"}},
		{name: "cut-host", reach: func(host, _ string) bool { return host != "DC0_C0_H1" }, words: nil},
	} {
		t.Log(c.name)
		if c.at == "" {
			between.set(c.lie, c.reach)
		}
		l.v.Before(func(call esxsim.Call) types.BaseMethodFault {
			if call.Method == c.at {
				between.set(c.lie, c.reach)
			}
			return nil
		})
		l.create(c.name)
		if c.words != nil {
			l.failing(c.name, c.words...)
			if d, err := l.get(c.name); err != nil || d.Volume != "" || d.State != "creating" {
				t.Errorf("%s: it is %+v %v", c.name, d, err)
			}
		}
		l.v.Before(nil)
		between.set(nil, nil)
		if d := l.settled(c.name); d.State != "present" {
			t.Errorf("%s: it is %+v", c.name, d)
		}
		for _, h := range l.live(c.name).Hosts {
			if !h.Accessible || len(h.Paths) != 2 {
				t.Errorf("%s: on %s it is %+v", c.name, h.Host, h)
			}
		}
	}
	data, got := make([]byte, 4096), make([]byte, 4096)
	data[0] = 7
	if err := l.v.Host(0).WriteAt("larger", data, 0); err != nil {
		t.Fatal(err)
	}

	// It grew, and hosts are told the old size.
	between.set(capacity(-1<<30), nil)
	if _, err := client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "larger", client.ExpandInput{Size: 3 * gib})); err != nil {
		t.Fatal(err)
	}
	l.failing("larger", "has 2147483648 bytes there, not 3221225472", "DC0_C0_H")
	between.set(nil, nil)
	l.settled("larger")

	// The LUN is pulled under the mounted datastore: hosts give it up, and nothing is done to
	// it or beside it until it is back.
	conn, err := client.Get[client.Connection](l.api.PublishVDisk(t.Context(), "larger", client.PublishInput{}))
	if err != nil {
		t.Fatal(err)
	}
	between.set(func(x *esxsim.Exchange) {
		if x.Asked && x.LUN == byte(conn.LUN) {
			x.LUN = noLUN
		}
	}, nil)
	if err := l.v.Host(0).ReadAt("larger", got, 0); err == nil {
		t.Error("a LUN that is gone is read")
	}
	if _, err := client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "larger", client.ExpandInput{Size: 4 * gib})); err != nil {
		t.Fatal(err)
	}
	l.failing("larger", "has lost LUN", "DC0_C0_H", second)
	for _, h := range l.live("larger").Hosts {
		if h.Accessible || h.Reason != "PermanentDeviceLoss" {
			t.Errorf("on %s a LUN that was pulled is %+v", h.Host, h)
		}
	}
	for _, h := range l.live("other").Hosts {
		if !h.Accessible {
			t.Errorf("on %s the other datastore is %+v", h.Host, h)
		}
	}
	if err := l.remove("larger"); err != nil {
		t.Fatal(err)
	}
	l.failing("larger", "DC0_C0_H0", "no path is alive")
	if v, err := client.Get[client.VDisk](l.api.GetVDisk(t.Context(), "larger")); err != nil || v.Size != 4*gib {
		t.Errorf("while its LUN is gone the vDisk is %+v %v", v, err)
	}
	between.set(nil, nil)
	l.gone("larger")
}

// TestCutOff: hosts that do not get to the target, or are not let in, are named, and nothing
// is formatted until all are.
func TestCutOff(t *testing.T) {
	between := &liar{}
	l := start(t, esxsim.Options{Hosts: 2, Reach: between.reaches})
	nobody := func(string, string) bool { return false }
	second := func(host, _ string) bool { return host != "DC0_C0_H1" }
	for _, c := range []struct {
		name  string
		reach func(host, portal string) bool
		words []string
	}{
		{"deaf", nobody, []string{"DC0_C0_H0", "does not see LUN", l.node.Portal()}},
		{"second", second, []string{"DC0_C0_H1", "does not see LUN", "host prepare"}},
	} {
		between.set(nil, c.reach)
		l.v.DropSessions()
		l.create(c.name)
		if job := l.failing(c.name, c.words...); job.Step != "hosts" {
			t.Errorf("%s: the job is %+v", c.name, job)
		}
		between.set(nil, nil)
		l.settled(c.name)
	}
	// Somebody takes a host out of the group while it is being prepared.
	r, err := client.Get[client.TargetList](l.api.ListTargets(t.Context(), nil))
	if err != nil || len(r.Items) != 1 {
		t.Fatal(r, err)
	}
	put := func(in client.GroupPatch) error {
		return client.Done(l.api.UpdateTargetGroup(t.Context(), r.Items[0].IQN, "hosts", in))
	}
	iqn := l.v.Host(1).IQN
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "RescanHba" && c.Host == "DC0_C0_H1" {
			if err := put(client.GroupPatch{RemoveInitiators: &[]string{iqn}}); err != nil {
				t.Error(err)
			}
			l.v.DropSessions("DC0_C0_H1") // the other one stays: it would be named first
		}
		return nil
	})
	l.create("kept-out")
	l.failing("kept-out", "DC0_C0_H1", "does not see LUN")
	l.v.Before(nil)
	l.settled("kept-out")
}
