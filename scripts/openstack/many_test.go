package openstack

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/attachments"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/openvstorage/ovgate/internal/client"
)

// How often the two drivers take turns, so that what else a machine does meets both.
const (
	manyRounds  = 2
	benchRounds = 5
)

// TestMany has workers create, attach, snapshot, detach and delete volumes side by side.
// Nothing is left on either side. OVGATE_CINDER_VOLUMES and OVGATE_CINDER_WORKERS say how
// many; with OVGATE_CINDER_COMPARE=1 Cinder's driver that does nothing is measured in turns
// with ours: what it takes is Cinder's own.
func TestMany(t *testing.T) {
	count, workers := number(t, "OVGATE_CINDER_VOLUMES", 50), number(t, "OVGATE_CINDER_WORKERS", 5)
	before := l.sides(t)
	kinds := []string{plain}
	if os.Getenv("OVGATE_CINDER_COMPARE") == "1" {
		kinds = append(kinds, "fake")
	}
	rates := turns(t, kinds, manyRounds, count, workers)
	if after := l.sides(t); after != before {
		t.Errorf("there was %+v, and is %+v", before, after)
	}
	checkOrphans(t)
	text := fmt.Sprintf("%d volumes by %d workers: ovgate %.2f/s", count, workers, median(rates[plain]))
	if fake := median(rates["fake"]); fake > 0 {
		text += fmt.Sprintf(", Cinder's fake driver %.2f/s, ratio %.2f", fake, median(rates[plain])/fake)
	}
	t.Log(text)
}

// BenchmarkMany is what make bench runs of it: 200 volumes by 20 workers, unless told else,
// beside Cinder's driver that does nothing.
func BenchmarkMany(b *testing.B) {
	count, workers := number(b, "OVGATE_CINDER_VOLUMES", 200), number(b, "OVGATE_CINDER_WORKERS", 20)
	before := l.sides(b)
	rates := turns(b, []string{plain, "fake"}, benchRounds, count, workers)
	if after := l.sides(b); after != before {
		b.Errorf("there was %+v, and is %+v", before, after)
	}
	checkOrphans(b)
	b.Logf("volumes/s in each round: ovgate %.2f, fake %.2f", rates[plain], rates["fake"])
	b.ReportMetric(median(rates[plain]), "volumes/s")
	b.ReportMetric(median(rates["fake"]), "volumes/s-fake")
}

// turns takes count volumes of each kind through their life, in rounds whose order turns
// around each time, and returns the volumes per second of each.
func turns(t testing.TB, kinds []string, rounds, count, workers int) map[string][]float64 {
	t.Helper()
	rates, rounds := map[string][]float64{}, min(rounds, count)
	for round := range rounds {
		n := count / rounds
		if round == 0 {
			n = count - n*(rounds-1)
		}
		for _, kind := range kinds {
			start := time.Now()
			many(t, kind, n, workers)
			rates[kind] = append(rates[kind], float64(n)/time.Since(start).Seconds())
		}
		slices.Reverse(kinds)
	}
	return rates
}

// median is 0 for none.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func number(t testing.TB, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s is no number of 1 or more", name, text)
	}
	return n
}

// many takes volumes of a type through their life.
func many(t testing.TB, kind string, count, workers int) {
	t.Helper()
	work := make(chan int, count)
	for i := range count {
		work <- i
	}
	close(work)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range work {
				if err := life(kind, fmt.Sprint("host", w)); err != nil {
					t.Errorf("%s volume %d: %v", kind, i, err)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// life is that of a volume.
func life(kind, host string) error {
	c := l.member
	v, err := c.tryCreate(volumes.CreateOpts{Name: "many", Size: 1, VolumeType: kind})
	if err != nil {
		return err
	}
	a, err := c.tryAttach(v.ID, host)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	s, err := snapshots.Create(l.ctx, c.block, snapshots.CreateOpts{VolumeID: v.ID, Name: "many", Force: true}).Extract()
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := c.waitSnapshot(s.ID, "available"); err != nil {
		return err
	}
	if err := a.detach(); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if err := c.tryDeleteSnapshot(s.ID); err != nil {
		return err
	}
	return c.tryDelete(v.ID)
}

// sides is what there is of volumes on both sides.
type sides struct {
	volumes, snapshots, attachments int // of Cinder
	vdisks, targets                 int // without the trash
}

func (l *lab) sides(t testing.TB) sides {
	t.Helper()
	var s sides
	pages, err := volumes.List(l.admin.block, volumes.ListOpts{AllTenants: true}).AllPages(l.ctx)
	ok(t, err)
	all, err := volumes.ExtractVolumes(pages)
	ok(t, err)
	s.volumes = len(all)
	pages, err = snapshots.List(l.admin.block, snapshots.ListOpts{AllTenants: true}).AllPages(l.ctx)
	ok(t, err)
	snaps, err := snapshots.ExtractSnapshots(pages)
	ok(t, err)
	s.snapshots = len(snaps)
	pages, err = attachments.List(l.admin.block, attachments.ListOpts{AllTenants: true}).AllPages(l.ctx)
	ok(t, err)
	at, err := attachments.ExtractAttachments(pages)
	ok(t, err)
	s.attachments = len(at)
	s.vdisks = l.vdisks(t)
	limit := 1000
	targets, err := client.Get[client.TargetList](l.api.ListTargets(l.ctx, &client.ListTargetsParams{Limit: &limit}))
	ok(t, err)
	s.targets = len(targets.Items)
	return s
}
