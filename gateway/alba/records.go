package alba

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/internal/kv"
)

// The records of the NSM host are where nodeKey says:
//
//	id of a node   in that node's DATA/alba/nsm.db
//	inRegistry     in the registry, for all its nodes
//
// A node whose registry is shared brings them there, once:
//
//	nsm/ in the registry is emptied, filled, compared → one transaction: nodeKey → nsm.db
//	becomes nsm.db.moved
//
// Until that transaction nsm.db is what counts, and a start after a crash begins anew.
const (
	nodeKey    = "cluster/alba"
	inRegistry = "registry"
	nsmPrefix  = "nsm/"
	movedFile  = nsmFile + ".moved"
)

// openNSM opens the NSM host.
func (s *Service) openNSM(ctx context.Context, r *running) (*nsm.Host, error) {
	where, err := s.claim(ctx)
	if err != nil {
		return nil, err
	}
	if where == s.o.Node {
		if r.nsmKV, err = kv.OpenBolt(s.nsmPath(nsmFile), kv.BoltOptions{}); err != nil {
			return nil, err
		}
		if r.older, err = olderNSM(ctx, r.nsmKV, s.o.Registry); err != nil {
			return nil, err
		}
		if s.o.Cluster == nil {
			return nsm.New(r.nsmKV), nil
		}
		if err := s.moveNSM(ctx, r.nsmKV); err != nil {
			return nil, fmt.Errorf("the manifests do not move to the registry: %w", err)
		}
		err := r.nsmKV.Close()
		if r.nsmKV = nil; err != nil {
			return nil, err
		}
	}
	if err := s.setAside(); err != nil {
		return nil, err
	}
	if r.older == "" {
		if r.older, err = s.olderRegistry(ctx); err != nil {
			return nil, err
		}
	}
	return nsm.New(s.o.Registry), nil
}

func (s *Service) nsmPath(name string) string { return filepath.Join(s.o.Data, albaDir, name) }

// claim returns where the NSM's records are, and decides it when there is no Alba yet.
func (s *Service) claim(ctx context.Context) (string, error) {
	want := s.o.Node
	if s.o.Cluster != nil {
		want = inRegistry
		if _, err := os.Stat(s.nsmPath(nsmFile)); err == nil {
			want = s.o.Node // of before the registry was shared
		} else if made, err := s.o.Registry.Get(ctx, "alba/i"); err != nil {
			return "", err
		} else if made != nil {
			want = "" // there is one, and its manifests are not here
		}
	}
	then := []kv.Op{kv.Put(nodeKey, []byte(want))}
	if want == "" {
		then = nil
	}
	res, err := s.o.Registry.Txn(ctx, []kv.Compare{kv.Absent(nodeKey)}, then, []kv.Op{kv.Get(nodeKey)})
	if err != nil {
		return "", err
	}
	where := want
	if !res.Succeeded {
		where = string(res.Gets[0].Value)
	}
	switch {
	case where == s.o.Node, where == inRegistry && s.o.Cluster != nil:
		return where, nil
	case where == "":
		return "", &control.Error{Code: control.CodeElsewhere, Object: "alba", Message: "the manifests of the object store are in alba/nsm.db of another node's data directory",
			Hint: "start that node first: it moves them to the registry"}
	}
	return "", &control.Error{Code: control.CodeElsewhere, Object: "alba", Message: "the manifests of the object store are in the data directory of node " + s.NodeName(where),
		Hint: "start that node with this version of ovgate first: it moves them to the registry"}
}

// moveNSM copies the records of nsm.db to the registry, and has them be there.
func (s *Service) moveNSM(ctx context.Context, from kv.Store) error {
	s.o.Log.Info("the manifests of the object store move to the registry")
	if err := kv.Wipe(ctx, s.o.Registry, nsmPrefix, nil); err != nil {
		return err
	}
	if err := s.step("wiped"); err != nil {
		return err
	}
	err := kv.Copy(ctx, from, s.o.Registry, nsmPrefix, func(kv.KV) (bool, error) { return true, s.step("copying") })
	if err != nil {
		return err
	}
	if err := kv.Same(ctx, from, s.o.Registry, nsmPrefix, nil); err != nil {
		return fmt.Errorf("%w: something else writes to the registry", err)
	}
	if err := s.step("copied"); err != nil {
		return err
	}
	mine := []kv.Compare{kv.ValueIs(nodeKey, []byte(s.o.Node))}
	res, err := s.o.Registry.Txn(ctx, mine, []kv.Op{kv.Put(nodeKey, []byte(inRegistry)), kv.Delete(nsmMark)}, nil)
	if err == nil && !res.Succeeded {
		err = errors.New("another process moved them meanwhile: does the node run twice?")
	}
	if err != nil {
		return err
	}
	return s.step("placed")
}

func (s *Service) step(name string) error {
	if s.o.steps == nil {
		return nil
	}
	return s.o.steps(name)
}

// setAside takes an nsm.db out of the way that is not used any more.
func (s *Service) setAside() error {
	err := os.Rename(s.nsmPath(nsmFile), s.nsmPath(movedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.o.Log.Info("the manifests are in the registry; the old ones are kept and not used", "old", s.nsmPath(movedFile))
	return syncDir(s.nsmPath(movedFile))
}

// nsmMark holds the revision that nsm.db had lately, markFile that of the shared registry.
const (
	nsmMark  = "alba/r/" + hostName
	markFile = "registry.rev"
	// markEvery is how often it is written, if it changed.
	markEvery = 30 * time.Second
)

// olderNSM tells in words that nsm.db is an older copy of itself: then what it does not
// know is not deleted, as its manifests may be the ones that are missing.
func olderNSM(ctx context.Context, db, registry kv.Store) (string, error) {
	rec, err := registry.Get(ctx, nsmMark)
	if err != nil || rec == nil {
		return "", err
	}
	was, err := strconv.ParseInt(string(rec.Value), 10, 64)
	if err != nil {
		return "", fmt.Errorf("record %s: %w", nsmMark, err)
	}
	now, err := revision(ctx, db)
	if err != nil || now >= was {
		return "", err
	}
	return fmt.Sprintf("%s is an older copy: it is at revision %d and was at %d. Nothing is deleted from the devices; bring the newer one back, or recover namespaces from the devices (ovgate alba recover)", nsmFile, now, was), nil
}

// olderRegistry tells in words that the registry, which has the manifests, is an older copy
// of itself, as after a restore of etcd.
func (s *Service) olderRegistry(ctx context.Context) (string, error) {
	b, err := os.ReadFile(s.nsmPath(markFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	was, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return "", fmt.Errorf("%s is damaged: remove it, once it is sure that the registry is not an older copy", s.nsmPath(markFile))
	}
	now, err := revision(ctx, s.o.Registry)
	if err != nil || now >= was {
		return "", err
	}
	return fmt.Sprintf("the registry is an older copy: it is at revision %d and was at %d. This node deletes nothing from the devices; recover namespaces from the devices (ovgate alba recover)", now, was), nil
}

func revision(ctx context.Context, s kv.Store) (int64, error) {
	_, rev, err := s.Range(ctx, nsmPrefix, "", 1)
	return rev, err
}

// mark writes down how far the store of the manifests is, until the Alba ends.
func (s *Service) mark(r *running) {
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	last := int64(-1)
	for ended := false; !ended; {
		select {
		case <-tick.C:
		case <-r.stop:
			ended = true
		}
		now, err := s.markNow(r, last)
		if err != nil {
			s.o.Log.Warn("the revision of the manifests was not written down", "error", err)
			continue
		}
		last = now
	}
}

// markWait bounds one attempt: a stop does not wait for a registry that is away.
const markWait = 5 * time.Second

func (s *Service) markNow(r *running, last int64) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), markWait)
	defer cancel()
	var store kv.Store = s.o.Registry
	if r.nsmKV != nil {
		store = r.nsmKV
	}
	rev, err := revision(ctx, store)
	if err != nil || rev == last {
		return rev, err
	}
	text := strconv.AppendInt(nil, rev, 10)
	if r.nsmKV != nil {
		_, err = s.o.Registry.Txn(ctx, nil, []kv.Op{kv.Put(nsmMark, text)}, nil)
		return rev, err
	}
	return rev, replaceFile(s.nsmPath(markFile), text)
}

// replaceFile writes a file durably in place of what is there.
func replaceFile(path string, b []byte) error {
	if err := removeDurably(path + newSuffix); err != nil {
		return err
	}
	if err := writeSecret(path+newSuffix, b); err != nil {
		return err
	}
	return errors.Join(os.Rename(path+newSuffix, path), syncDir(path))
}
