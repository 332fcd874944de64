package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/backup"
	"github.com/openvstorage/ovgate/internal/client"
)

// vpoolRoot is the object that every vPool has.
const vpoolRoot = "ovgate.root"

func (a *app) vdiskBackup() *cobra.Command {
	var snapshot, to string
	cmd := a.vdiskVerb("backup NAME --snapshot SNAPSHOT --to PLACE", "Copy a snapshot to a place of backups: a directory, S3 or Swift", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) (err error) {
			if snapshot == "" || to == "" {
				return usagef("vdisk backup %s: give --snapshot and --to", args[0])
			}
			m, err := a.backupOf(ctx, api, args[0], snapshot)
			if err != nil {
				return err
			}
			s, err := a.openBackups(ctx, to, true)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			w, m, err := a.backUp(ctx, api, s.Store, m)
			if err != nil {
				return err
			}
			return printOne(a, backupDone{m.Name, m.SnapshotName, to, m.Size, w.Stored, w.Kept}, [][]string{
				{"vdisk", m.Name}, {"snapshot", m.SnapshotName}, {"place", to}, {"size", formatSize(m.Size)},
				{"stored", formatSize(w.Stored)}, {"there already", formatSize(w.Kept)},
			})
		})
	cmd.Long = "Copy a snapshot to a place of backups, with its checksums. What earlier backups there have, of this vDisk or another,\n" +
		"is not stored again, but read and checked, and mended where it is damaged. A backup that was interrupted is gone on\n" +
		"with by repeating the command, and is not listed until it is complete.\n\n" + placeHelp
	cmd.Example = "  ovgate vdisk backup db1 --snapshot sunday --to /mnt/backups\n  ovgate vdisk backup db1 --snapshot sunday --to s3://backups/ovgate"
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "name or id of the snapshot")
	cmd.Flags().StringVar(&to, "to", "", "a directory, which is made if it is not there, s3://BUCKET/PREFIX or swift://CONTAINER/PREFIX")
	return cmd
}

// backupDone is what a backup says with -o json.
type backupDone struct {
	VDisk    string `json:"vdisk"`
	Snapshot string `json:"snapshot"`
	Place    string `json:"place"`
	Size     int64  `json:"size"`
	Stored   int64  `json:"stored"`
	Kept     int64  `json:"kept"`
}

// backupOf describes a snapshot.
func (a *app) backupOf(ctx context.Context, api *client.Client, name, snapshot string) (backup.Manifest, error) {
	v, err := client.Get[client.VDisk](api.GetVDisk(ctx, name))
	if err != nil {
		return backup.Manifest{}, err
	}
	params := client.ListSnapshotsParams{Limit: new(pageSize)}
	all, err := client.All(func(cursor *string) ([]client.Snapshot, *string, error) {
		params.Cursor = cursor
		l, err := client.Get[client.SnapshotList](api.ListSnapshots(ctx, v.ID, &params))
		return l.Items, l.Next, err
	})
	if err != nil {
		return backup.Manifest{}, err
	}
	for _, s := range all {
		if s.Name == snapshot || s.ID == snapshot {
			return backup.Manifest{VDisk: v.ID, Name: v.Name, Labels: v.Labels, Snapshot: s.ID, SnapshotName: s.Name, Taken: s.Created, Size: s.Size, ClusterSize: v.ClusterSize}, nil
		}
	}
	return backup.Manifest{}, &client.APIError{Status: 404, Object: "vdisk " + v.Name, Message: "it has no snapshot " + snapshot, Field: "snapshot", Hint: "ovgate snapshot list " + v.Name + " shows them"}
}

// backUp copies a snapshot.
func (a *app) backUp(ctx context.Context, api *client.Client, s backup.Store, m backup.Manifest) (w *backup.Writer, _ backup.Manifest, err error) {
	t, err := client.Get[client.Transfer](api.BeginExport(ctx, m.VDisk, &client.BeginExportParams{IdempotencyKey: new(rand.Text())}, client.ExportInput{Snapshot: &m.Snapshot}))
	if err != nil {
		return nil, m, err
	}
	defer func() {
		err = errors.Join(err, a.giveUp(ctx, func(ctx context.Context) error { return client.Done(api.EndExport(ctx, t.ID)) }))
	}()
	stop := a.keep(ctx, func(ctx context.Context) error { return client.Done(api.GetExport(ctx, t.ID)) })
	defer stop()
	if t.Size != m.Size {
		return nil, m, fmt.Errorf("vdisk %s: the node gives %d bytes for snapshot %s, which has %d", m.Name, t.Size, m.SnapshotName, m.Size)
	}
	if w, err = s.Begin(m); err != nil {
		return nil, m, err
	}
	p := a.progress("backed up")
	defer p.end()
	c := chunker{size: t.Size, put: func(off int64, b []byte) error {
		p.show(off, t.Size)
		return w.Put(ctx, off, b)
	}}
	r := &rangeReader{api: api, id: t.ID, size: t.Size}
	if err = r.each(ctx, c.add); err == nil {
		err = c.flush()
	}
	if err == nil {
		m, err = w.Finish(ctx, time.Now())
	}
	return w, m, err
}

// chunker makes chunks of backups of pieces of a disk that come in order.
type chunker struct {
	size int64
	put  func(off int64, b []byte) error
	off  int64
	buf  []byte // nil: none is begun
}

func (c *chunker) add(off int64, p []byte) error {
	for len(p) > 0 {
		at := off / backup.ChunkBytes * backup.ChunkBytes
		if c.buf != nil && at != c.off {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if c.buf == nil {
			c.off, c.buf = at, make([]byte, min(backup.ChunkBytes, c.size-at))
		}
		n := copy(c.buf[off-at:], p)
		off, p = off+int64(n), p[n:]
	}
	return nil
}

// flush puts the chunk that was begun, unless it is zeros.
func (c *chunker) flush() error {
	b := c.buf
	c.buf = nil
	for i := 0; i < len(b); i += blockBytes {
		if !isZero(b[i:min(len(b), i+blockBytes)]) {
			return c.put(c.off, b)
		}
	}
	return nil
}

func (a *app) vdiskBackups() *cobra.Command {
	cmd := &cobra.Command{Use: "backups PLACE", Short: "List the backups in a place", Long: "List the backups in a place.\n\n" + placeHelp, Args: names("PLACE")}
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := a.checkFlags(); err != nil {
			return err
		}
		all, err := a.listBackups(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return printList(a, all, []string{"VDISK", "SNAPSHOT", "TAKEN", "SIZE", "MADE"}, func(m backup.Manifest) []string {
			return []string{m.Name, m.SnapshotName, formatTime(&m.Taken), formatSize(m.Size), formatTime(&m.Made)}
		})
	}
	return cmd
}

func (a *app) listBackups(ctx context.Context, place string) (all []backup.Manifest, err error) {
	s, err := a.openBackups(ctx, place, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return sortedBackups(ctx, s.Store, func(m *backup.Manifest) bool {
		m.Pages = nil // of no interest to people
		return true
	})
}

// sortedBackups returns those that keep wants, by vDisk and time.
func sortedBackups(ctx context.Context, s backup.Store, keep func(*backup.Manifest) bool) (all []backup.Manifest, err error) {
	err = s.List(ctx, func(m backup.Manifest) error {
		if keep(&m) {
			all = append(all, m)
		}
		return nil
	})
	slices.SortFunc(all, func(a, b backup.Manifest) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.VDisk, b.VDisk), a.Taken.Compare(b.Taken))
	})
	return all, err
}

func (a *app) vdiskRestore() *cobra.Command {
	var vpool, of, snapshot string
	cmd := a.vdiskVerb("restore PLACE NAME", "Create a vDisk from a backup", names("PLACE", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) (err error) {
			s, err := a.openBackups(ctx, args[0], false)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.close()) }()
			m, err := chooseBackup(ctx, s.Store, args[0], of, snapshot)
			if err != nil {
				return err
			}
			in := client.VDiskInput{Name: args[1], VPool: vpool, Size: m.Size, ClusterSize: &m.ClusterSize}
			if len(m.Labels) > 0 {
				in.Labels = new(client.Labels(m.Labels))
			}
			v, err := a.importFrom(ctx, api, content{args[0], m.Size, func(ctx context.Context, fn func(int64, []byte) error) error {
				return s.Read(ctx, m, func(off int64, p []byte) error { return pieces(off, p, fn) })
			}}, in)
			if err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Create a vDisk with the content, size and labels of a backup. Every checksum is verified; the vDisk is there once all of\n" +
		"it is durable, and when the restore fails there is none. A vDisk of that name is not replaced.\n\n" + placeHelp
	cmd.Example = "  ovgate vdisk restore /mnt/backups db1-sunday --vdisk db1 --snapshot sunday"
	f := cmd.Flags()
	f.StringVar(&vpool, "vpool", defaultVPool, "name or id of the vPool")
	f.StringVar(&of, "vdisk", "", "name or id of the vDisk that was backed up (default the only one)")
	f.StringVar(&snapshot, "snapshot", "", "name or id of the snapshot (default the only one)")
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

// chooseBackup finds the one backup that the flags name.
func chooseBackup(ctx context.Context, s backup.Store, dir, of, snapshot string) (backup.Manifest, error) {
	var pages []string // of the last; one is enough, and those of many are large
	found, err := sortedBackups(ctx, s, func(m *backup.Manifest) bool {
		if of != "" && m.Name != of && m.VDisk != of || snapshot != "" && m.SnapshotName != snapshot && m.Snapshot != snapshot {
			return false
		}
		pages, m.Pages = m.Pages, nil
		return true
	})
	switch {
	case err != nil:
		return backup.Manifest{}, err
	case len(found) == 0:
		return backup.Manifest{}, usagef("%s has no such backup; ovgate vdisk backups %s lists them", dir, dir)
	case len(found) > 1:
		var have []string
		for _, m := range found[:min(len(found), maxReasons)] {
			have = append(have, m.Name+" "+m.SnapshotName)
		}
		return backup.Manifest{}, usagef("%s has %d that could be meant: %s; say which with --vdisk and --snapshot", dir, len(found), strings.Join(have, ", "))
	}
	found[0].Pages = pages
	return found[0], nil
}
