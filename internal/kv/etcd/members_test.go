package etcd_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/internal/smalldisk"
)

// TestMemberStates: each member tells its size and the alarms; one that is not there says
// nothing, and keeps nobody waiting for long.
func TestMemberStates(t *testing.T) {
	c := newCluster(t, 3)
	s := c.open(t, "test/")
	if _, err := s.Txn(t.Context(), nil, []kv.Op{kv.Put("a", make([]byte, 100<<10))}, nil); err != nil {
		t.Fatal(err)
	}
	c.stop(2)
	var got []etcd.MemberState
	until(t, "what was written is on disk", func() bool { // a member writes many changes at once
		got = s.Members(t.Context())
		return !slices.ContainsFunc(got[:2], func(m etcd.MemberState) bool { return m.Err == nil && m.InUse < 100<<10 })
	})
	for i, m := range got {
		if m.Endpoint != c.endpoints[i] {
			t.Errorf("member %d is %s, want %s", i, m.Endpoint, c.endpoints[i])
		}
		if i == 2 {
			if m.Err == nil || m.Size != 0 {
				t.Errorf("one that was stopped: %+v", m)
			}
			continue
		}
		if m.Err != nil || m.InUse < 100<<10 || m.Size < m.InUse || m.Quota < m.Size || len(m.Alarms) != 0 {
			t.Errorf("%+v", m)
		}
	}
	raw, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	st, err := raw.Status(t.Context(), c.endpoints[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{st.Header.MemberId, st.Leader} {
		req := &etcdserverpb.AlarmRequest{Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: etcdserverpb.AlarmType_NOSPACE}
		if _, err := etcdserverpb.NewMaintenanceClient(raw.ActiveConnection()).Alarm(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Members(t.Context()); !slices.Equal(got[0].Alarms, []string{"NOSPACE"}) {
		t.Errorf("%+v", got[0])
	}
	if err := s.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.Members(t.Context()); len(got[0].Alarms) != 0 {
		t.Errorf("disarmed: %+v", got[0])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := s.Members(t.Context()); got[0].Err == nil {
		t.Errorf("after the end: %+v", got)
	}
}

// faultDisk has room for the log of a member, 64 MiB, and for the next file of it, which is made
// in advance: where that does not fit, any write beside it may be the one that finds no room.
const faultDisk = 256 << 20

// TestFault: a member whose disk is full ends, and the process does not.
func TestFault(t *testing.T) {
	dir := smalldisk.Mount(t, faultDisk)
	o := etcd.ServerOptions{Name: "m", Dir: filepath.Join(dir, "m"), Members: map[string]string{"m": etcdtest.Free(t)}, Client: etcdtest.Free(t), Token: t.Name()}
	s, err := etcd.Serve(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	store, err := etcd.Open(t.Context(), etcd.Options{Endpoints: []string{o.Client}, Prefix: "test/"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.Ended()
		cancel()
	}()
	for i := 0; ctx.Err() == nil; i++ {
		if i == 1000 {
			t.Fatal("500 MiB went onto a smaller disk")
		}
		one, done := context.WithTimeout(ctx, 10*time.Second)
		_, _ = store.Txn(one, nil, []kv.Op{kv.Put(fmt.Sprint("k", i), make([]byte, 512<<10))}, nil)
		done()
	}
	if s.Fault() == "" {
		t.Error("it ended without a fault")
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	s.Close()
}

// TestDefragment: a member gives back what it does not use.
func TestDefragment(t *testing.T) {
	c := newCluster(t, 1)
	s := c.open(t, "test/")
	for i := range 40 {
		if _, err := s.Txn(t.Context(), nil, []kv.Op{kv.Put(fmt.Sprint("k", i), make([]byte, 512<<10))}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := kv.Wipe(t.Context(), s, "", func(kv.KV) bool { return true }); err != nil {
		t.Fatal(err)
	}
	c.compact(t)
	if before := s.Members(t.Context())[0].Size; before < 20<<20 {
		t.Fatalf("%d bytes before", before)
	}
	if err := s.Defragment(t.Context(), c.endpoints[0]); err != nil {
		t.Fatal(err)
	}
	if after := s.Members(t.Context())[0].Size; after > 10<<20 {
		t.Errorf("%d bytes after", after)
	}
}
