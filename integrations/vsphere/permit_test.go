package vsphere_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// TestPermit: what changes something is sent with a permit only, which is asked for again when
// it goes out; looks need none.
func TestPermit(t *testing.T) {
	v, err := esxsim.Start(esxsim.Options{Hosts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	var sent, asked atomic.Int64
	v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "UpdateSoftwareInternetScsiEnabled" {
			sent.Add(1)
		}
		return nil
	})
	var refuse, late error
	c, err := vsphere.Connect(t.Context(), vsphere.Options{
		URL: v.URL(), User: v.User(), Secret: v.Password(), Thumbprint: v.Thumbprint(), Timeout: 30 * time.Second,
		Permit: func(_ context.Context, limit time.Duration) (func() error, error) {
			asked.Add(1)
			if limit != 150*time.Second {
				t.Errorf("the call takes up to %v", limit)
			}
			return func() error { return late }, refuse
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hosts, err := c.Hosts(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Storages(t.Context(), hosts, vsphere.Adapters); err != nil || asked.Load() != 0 {
		t.Fatalf("looks need %d permits: %v", asked.Load(), err)
	}
	for i, at := range []*error{&refuse, &late} {
		*at = fmt.Errorf("%w: it is gone", vsphere.ErrNotOurs)
		if _, err := hosts[0].EnableISCSI(t.Context()); !errors.Is(err, vsphere.ErrNotOurs) || !strings.Contains(err.Error(), "it is gone") {
			t.Errorf("without a permit: %v", err)
		}
		if asked.Load() != int64(i+1) || sent.Load() != 0 {
			t.Errorf("asked for %d permits, sent %d", asked.Load(), sent.Load())
		}
		*at = nil
	}
	if _, err := hosts[0].EnableISCSI(t.Context()); err != nil || sent.Load() != 1 {
		t.Errorf("with a permit it is sent %d times: %v", sent.Load(), err)
	}
	v.ExpireSessions() // signing in again needs none
	before := asked.Load()
	if _, err := c.Hosts(t.Context(), ""); err != nil || asked.Load() != before {
		t.Errorf("signing in again: %v, %d permits", err, asked.Load()-before)
	}
}
