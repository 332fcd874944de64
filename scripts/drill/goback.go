package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/selfcheck"
)

// spoiled is how many blocks of a clone are written before it is rolled back.
const spoiled = 64

// rollback takes a clone back over what was written to it, and compares.
func (o *vdiskOps) rollback(ctx context.Context, vdisk string) error {
	name := fmt.Sprint("r", o.serial)
	in := client.CloneInput{Name: name}
	if all := o.known(vdisk); len(all) > 0 {
		in.Snapshot = &all[o.e.rng.IntN(len(all))]
	}
	o.clones[name] = true
	if err := client.Done(o.api.CloneVDisk(ctx, vdisk, nil, in)); err != nil {
		return err
	}
	if err := client.Done(o.api.CreateSnapshot(ctx, name, nil, client.SnapshotInput{Name: "before"})); err != nil {
		return err
	}
	sum, err := o.export(ctx, name)
	if err != nil {
		return err
	}
	o.rolled[name] = sum
	if err := o.spoil(ctx, name); err != nil {
		return err
	}
	if err := o.back(ctx, name); err != nil {
		return err
	}
	return o.drop(ctx, name)
}

// spoil writes to a vDisk what it does not hold.
func (o *vdiskOps) spoil(ctx context.Context, name string) error {
	conn, err := o.n.Publish(ctx, name)
	if err != nil {
		return err
	}
	d, err := dial(ctx, conn)
	if err != nil {
		return err
	}
	block := make([]byte, selfcheck.BlockSize)
	for i := range block {
		block[i] = byte(o.serial + i)
	}
	for range spoiled {
		if _, err := d.WriteAt(block, o.e.rng.Int64N(o.blocks)*selfcheck.BlockSize); err != nil {
			return errors.Join(err, d.Close())
		}
	}
	return d.Close()
}

// back rolls a clone back and compares it with what it was.
func (o *vdiskOps) back(ctx context.Context, name string) error {
	before, force := "before", true
	if err := client.Done(o.api.RollbackVDisk(ctx, name, client.RollbackInput{Snapshot: &before, Force: &force})); err != nil {
		return err
	}
	sum, err := o.export(ctx, name)
	if err == nil && sum != o.rolled[name] {
		err = fmt.Errorf("vdisk %s: %w than the snapshot that it was rolled back to", name, errOther)
	}
	delete(o.rolled, name)
	return err
}

// backup copies a snapshot away and restores it, and compares both with a clone of it. The
// copy is incremental to those before.
func (o *vdiskOps) backup(ctx context.Context, vdisk string) error {
	all := o.known(vdisk)
	if len(all) == 0 {
		return nil
	}
	snapshot, dir := all[o.e.rng.IntN(len(all))], filepath.Join(o.e.dir, "backups")
	if _, err := o.n.CLI(ctx, "vdisk", "backup", vdisk, "--snapshot", snapshot, "--to", dir); err != nil {
		return err
	}
	clone, restored := fmt.Sprint("b", o.serial), fmt.Sprint("restored", o.serial)
	o.clones[clone], o.clones[restored] = true, true
	if err := client.Done(o.api.CloneVDisk(ctx, vdisk, nil, client.CloneInput{Name: clone, Snapshot: &snapshot})); err != nil {
		return err
	}
	if _, err := o.n.CLI(ctx, "vdisk", "restore", dir, restored, "--vdisk", vdisk, "--snapshot", snapshot, "--vpool", "drill"); err != nil {
		return err
	}
	want, err := o.export(ctx, clone)
	if err != nil {
		return err
	}
	got, err := o.export(ctx, restored)
	if err == nil && got != want {
		err = fmt.Errorf("vdisk %s: %w in the backup of snapshot %s", vdisk, errOther, snapshot)
	}
	return errors.Join(err, o.drop(ctx, clone), o.drop(ctx, restored))
}

// export returns the checksum of a vDisk's content.
func (o *vdiskOps) export(ctx context.Context, name string) (sum string, err error) {
	file := filepath.Join(o.e.dir, fmt.Sprintf("%s-%d.raw", name, o.serial))
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if _, err := o.n.CLI(ctx, "vdisk", "export", name, file); err != nil {
		return "", err
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(file)) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// drop deletes a vDisk for good, if it is there.
func (o *vdiskOps) drop(ctx context.Context, name string) error {
	purge := true
	err := absent(client.Done(o.api.UnpublishVDisk(ctx, name, client.UnpublishInput{Force: &purge})))
	if err == nil {
		err = absent(client.Done(o.api.DeleteVDisk(ctx, name, &client.DeleteVDiskParams{Purge: &purge})))
	}
	if err == nil {
		err = absent(client.Done(o.api.PurgeTrash(ctx, name)))
	}
	if err == nil {
		delete(o.clones, name)
		delete(o.rolled, name)
	}
	return err
}

// absent takes what is not there for done.
func absent(err error) error {
	var e *client.APIError
	if errors.As(err, &e) && e.Code == "not_found" {
		return nil
	}
	return err
}
