package main

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// snapshot returns the verbs of snapshots.
func (a *app) snapshot() *cobra.Command {
	return group("snapshot", "Snapshots of vDisks: create, list, delete", a.snapshotCreate(), a.snapshotGroup(), a.snapshotList(), a.snapshotDelete())
}

func (a *app) snapshotCreate() *cobra.Command {
	var labels map[string]string
	var consistent, sticky bool
	cmd := a.vdiskVerb("create VDISK NAME", "Make a snapshot of a vDisk", names("VDISK", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			in := client.SnapshotInput{Name: args[1], Consistent: &consistent, Sticky: &sticky}
			if len(labels) > 0 {
				in.Labels = new(client.Labels(labels))
			}
			s, err := client.Get[client.Snapshot](api.CreateSnapshot(ctx, args[0], &client.CreateSnapshotParams{IdempotencyKey: new(rand.Text())}, in))
			if err != nil {
				return err
			}
			return printOne(a, s, [][]string{
				{"name", s.Name}, {"id", s.ID}, {"size", formatSize(s.Size)}, {"kind", snapshotKind(s)},
				{"in backend", yesNo(s.InBackend)}, {"created", formatTime(&s.Created)},
			})
		})
	cmd.Example = "  ovgate snapshot create db1 before-upgrade --label ticket=4711 --sticky"
	f := cmd.Flags()
	f.StringToStringVar(&labels, "label", nil, "label NAME=VALUE; may be repeated")
	f.BoolVar(&consistent, "consistent", false, "note that applications or file systems on it are at rest")
	f.BoolVar(&sticky, "sticky", false, "let it be deleted with --force only")
	return cmd
}

func (a *app) snapshotGroup() *cobra.Command {
	var labels map[string]string
	var consistent, sticky bool
	cmd := &cobra.Command{Use: "group NAME VDISK...", Short: "Make a snapshot of several vDisks at one moment", Args: func(_ *cobra.Command, args []string) error {
		if len(args) < 2 {
			return usagef("snapshot group: give NAME and one VDISK or more")
		}
		return nil
	}}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.SnapshotGroupInput{Name: args[0], Vdisks: args[1:], Consistent: &consistent, Sticky: &sticky}
		if len(labels) > 0 {
			in.Labels = new(client.Labels(labels))
		}
		g, err := client.Get[client.SnapshotGroup](api.CreateSnapshotGroup(ctx, &client.CreateSnapshotGroupParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return printList(a, g.Members, []string{"VDISK", "SNAPSHOT", "CREATED", "SIZE"}, func(m client.GroupMember) []string {
			return []string{m.VDisk, m.Snapshot.Name, formatTime(&m.Snapshot.Created), formatSize(m.Snapshot.Size)}
		})
	})
	cmd.Long = "Make a snapshot of each of the vDisks, all at one moment: a database whose log is on another vDisk than its tables\n" +
		"finds both as a power cut would have left them. All snapshots are made or none; they have one id, and are listed,\n" +
		"cloned and deleted vDisk by vDisk."
	cmd.Example = "  ovgate snapshot group before-upgrade db-tables db-log"
	f := cmd.Flags()
	f.StringToStringVar(&labels, "label", nil, "label NAME=VALUE; may be repeated")
	f.BoolVar(&consistent, "consistent", false, "note that applications or file systems on them are at rest")
	f.BoolVar(&sticky, "sticky", false, "let them be deleted with --force only")
	return cmd
}

func (a *app) snapshotList() *cobra.Command {
	var query string
	cmd := a.vdiskVerb("list VDISK", "List the snapshots of a vDisk, oldest first", names("VDISK"),
		func(ctx context.Context, api *client.Client, args []string) error {
			params := client.ListSnapshotsParams{Limit: new(pageSize), Q: given(query)}
			items, err := client.All(func(cursor *string) ([]client.Snapshot, *string, error) {
				params.Cursor = cursor
				l, err := client.Get[client.SnapshotList](api.ListSnapshots(ctx, args[0], &params))
				return l.Items, l.Next, err
			})
			if err != nil {
				return err
			}
			return printList(a, items, []string{"NAME", "CREATED", "SIZE", "KIND", "IN BACKEND"}, func(s client.Snapshot) []string {
				return []string{s.Name, formatTime(&s.Created), formatSize(s.Size), snapshotKind(s), yesNo(s.InBackend)}
			})
		})
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name or labels contain this")
	return cmd
}

func (a *app) snapshotDelete() *cobra.Command {
	var force bool
	cmd := a.vdiskVerb("delete VDISK NAME", "Delete a snapshot; clones of it live on", names("VDISK", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if err := a.confirm(ctx, "Delete snapshot "+args[1]+" of vDisk "+args[0]+"?"); err != nil {
				return err
			}
			return client.Done(api.DeleteSnapshot(ctx, args[0], args[1], &client.DeleteSnapshotParams{Force: &force}))
		})
	cmd.Flags().BoolVar(&force, "force", false, "although it is sticky")
	return cmd
}

// snapshotKind prints what is special about a snapshot.
func snapshotKind(s client.Snapshot) string {
	var all []string
	for _, k := range []struct {
		is   bool
		name string
	}{{s.Consistent, "consistent"}, {s.Sticky, "sticky"}, {s.Automatic, "automatic"}, {s.Group > 0, "group"}} {
		if k.is {
			all = append(all, k.name)
		}
	}
	return dash(strings.Join(all, " "))
}
