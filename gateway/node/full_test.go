package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/smalldisk"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// commandPatience is how long Linux waits for a command before it aborts it.
const commandPatience = 30 * time.Second

// TestStoreFull: with a full store behind it a LUN says so once its journal is full, and
// still takes what discards; other vDisks are deleted and scrubbed, which makes space,
// and then writes go on.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	const block, large = 1 << 20, 64 << 20
	dir := smalldisk.Mount(t, large)
	p := remotetest.Peer(t, "s3", "--data", dir)
	r := start(t, Options{Data: t.TempDir()})
	r.call("POST", "/backends", map[string]any{"name": "store", "kind": "s3", "secret": p["secret_key"],
		"options": map[string]any{"container": p["bucket"], "url": p["endpoint"], "user": p["access_key"]}}, 201)
	r.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "s3", "store": "store", "path": "gold"},
		"settings": map[string]any{"scoSize": 4 << 20, "journalQuota": 128 << 20}}, 201)
	write := func(s *initiator.Session, i int, seed uint64) error {
		ctx, cancel := context.WithTimeout(t.Context(), commandPatience)
		defer cancel()
		return s.WriteAt(ctx, 0, backendtest.Data(seed, block), uint64(i)*block/512)
	}
	read := func(s *initiator.Session, i int, seed uint64) {
		t.Helper()
		got := make([]byte, block)
		if err := s.ReadAt(t.Context(), 0, got, uint64(i)*block/512); err != nil || string(got) != string(backendtest.Data(seed, block)) {
			t.Errorf("block %d is not what was written: %v", i, err)
		}
	}

	// One that goes, and one of which half is garbage.
	sessions := map[string]*initiator.Session{}
	for _, name := range []string{"gone", "stale", "disk"} {
		r.disk(name, "gold", 256<<20)
		sessions[name] = r.login(name)
	}
	for i := range 16 {
		for _, name := range []string{"gone", "stale"} {
			if err := write(sessions[name], i, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"gone", "stale"} {
		r.call("POST", "/vdisks/"+name+"/commit", nil, 200)
	}
	if err := sessions["stale"].Unmap(t.Context(), 0, initiator.Extent{LBA: 0, Blocks: 12 * block / 512}); err != nil {
		t.Fatal(err)
	}
	r.call("POST", "/vdisks/stale/commit", nil, 200)

	disk := sessions["disk"]
	full := func(err error) bool {
		var sense *initiator.SCSIError
		return errors.As(err, &sense) && sense.Sense.Key == 7 && sense.Sense.ASC == 0x27 && sense.Sense.ASCQ == 7
	}
	written := 0
	var err error
	for ; err == nil && written < 250; written++ {
		err = write(disk, written, uint64(written))
	}
	written--
	if !full(err) {
		t.Fatalf("write %d with a full store: %v", written, err)
	}
	t.Logf("%d blocks were taken", written)
	for _, i := range []int{0, written / 2, written - 1} {
		read(disk, i, uint64(i))
	}
	if err := disk.Unmap(t.Context(), 0, initiator.Extent{LBA: 0, Blocks: block / 512}); err != nil {
		t.Errorf("unmap with a full store: %v", err)
	}
	status := r.text(r.call("GET", "/status", nil, 200))
	if !strings.Contains(status, "no space left") || !strings.Contains(status, "vdisk disk") {
		t.Errorf("health says nothing of it: %s", status)
	}

	// Not even the few bytes of a new vDisk fit.
	empty := smalldisk.Fill(t, dir)
	if e := r.call("POST", "/vdisks", map[string]any{"name": "late", "vpool": "gold", "size": 1 << 30}, 507); e["code"] != "no_space" {
		t.Errorf("a vDisk on a full store: %v", e)
	}
	r.until("nothing is left of it", func() bool { status, _ := r.try("GET", "/vdisks/late", nil); return status == 404 })
	empty()
	r.disk("late", "gold", 1<<30)

	// Space is made with what is there.
	r.call("POST", "/vdisks/stale/scrub", nil, 202)
	r.until("scrubbed", func() bool { return r.call("GET", "/vdisks/stale/scrub", nil, 200)["state"] == "done" })
	sessions["gone"].Close()
	r.until("unpublished", func() bool {
		status, _ := r.try("POST", "/vdisks/gone/unpublish", nil)
		return status/100 == 2
	})
	r.call("DELETE", "/vdisks/gone?purge=true", nil, 204)
	r.until("written again", func() bool {
		err := write(disk, written, uint64(written))
		if err != nil && !full(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	// And the store grows.
	smalldisk.Remount(t, dir, fmt.Sprintf("size=%d", 8*large))
	r.call("POST", "/vdisks/disk/commit", nil, 200)
	r.until("well", func() bool { return !strings.Contains(r.text(r.call("GET", "/status", nil, 200)), "no space left") })
	for i := 1; i <= written; i += 7 {
		read(disk, i, uint64(i))
	}
	read(sessions["stale"], 14, 1)
	if t.Failed() {
		t.Log(r.text(r.call("GET", "/status", nil, 200)))
	}
}
