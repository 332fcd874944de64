package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// engine is the vDisk engine in this process: one vDisk with the smallest
// journal quota on a local-directory backend, so that the steps go around the
// journal several times and upload all the while.
type engine struct {
	kv    kv.Store
	store *local.Store
	host  *volume.Host
	vol   *volume.Volume
}

const (
	engineSize = 4 << 30
	// quota is the journal quota of both vDisks under test, in bytes.
	quota = volume.MinQuota
)

func openEngine(ctx context.Context, dir string) (*engine, error) {
	state, err := blockfs.OS(filepath.Join(dir, "engine"))
	if err != nil {
		return nil, err
	}
	objects, err := blockfs.OS(filepath.Join(dir, "engine-backend"))
	if err != nil {
		return nil, err
	}
	e := &engine{}
	if e.store, err = local.Open(objects, local.Options{}); err != nil {
		return nil, err
	}
	if e.kv, err = kv.OpenBolt(filepath.Join(dir, "engine", "kv.db"), kv.BoltOptions{}); err != nil {
		return nil, err
	}
	e.host, err = volume.NewHost(ctx, volume.HostOptions{FS: state, Registry: volume.KVRegistry{Store: e.kv}, Node: "bench"})
	if err != nil {
		return nil, err
	}
	return e, e.open(ctx)
}

func (e *engine) open(ctx context.Context) error {
	pool, err := e.host.AttachPool(ctx, volume.PoolConfig{
		ClusterID: "bench", ID: "bench", Name: "bench", Store: e.store,
		Settings: volume.Settings{JournalQuota: quota},
	})
	if err != nil {
		return err
	}
	id, err := volume.NewID(nil)
	if err != nil {
		return err
	}
	if err := pool.Create(ctx, volume.Spec{ID: id, Name: "bench", Size: engineSize}); err != nil {
		return err
	}
	e.vol, err = pool.Open(ctx, id)
	return err
}

// WriteAt implements disk.
func (e *engine) WriteAt(p []byte, off int64) (int, error) {
	return len(p), e.vol.WriteAt(context.Background(), p, off)
}

// ReadAt implements disk.
func (e *engine) ReadAt(p []byte, off int64) (int, error) {
	return len(p), e.vol.ReadAt(context.Background(), p, off)
}

// quotas says how often the writes went around the journal, and what was uploaded.
func (e *engine) quotas() string {
	s := e.vol.Stats()
	return fmt.Sprintf("%.1f quotas written, %d SCOs of %d MiB uploaded", float64(s.WriteBytes)/float64(quota), s.SCOs, s.SCOBytes>>20)
}

func (e *engine) close(ctx context.Context) error {
	return errors.Join(e.host.Close(ctx), e.store.Close(), e.kv.Close())
}
