package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// trash returns the verbs of deleted vDisks.
func (a *app) trash() *cobra.Command {
	return group("trash", "Deleted vDisks that are kept for a while: list, restore, purge", a.trashList(), a.trashRestore(), a.trashPurge())
}

// listTrash reads the trash of a vPool, or of all for an empty name.
func listTrash(ctx context.Context, api *client.Client, vpool, query string) ([]client.Trashed, error) {
	params := client.ListTrashParams{Limit: new(pageSize), VPool: given(vpool), Q: given(query)}
	return client.All(func(cursor *string) ([]client.Trashed, *string, error) {
		params.Cursor = cursor
		l, err := client.Get[client.TrashList](api.ListTrash(ctx, &params))
		return l.Items, l.Next, err
	})
}

func (a *app) trashList() *cobra.Command {
	var vpool, query string
	cmd := &cobra.Command{Use: "list", Short: "List the vDisks in the trash, those that go first at the start", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		all, err := listTrash(ctx, api, vpool, query)
		if err != nil {
			return err
		}
		return printList(a, all, []string{"NAME", "ID", "VPOOL", "SIZE", "STORED", "DELETED", "GONE AT"}, func(v client.Trashed) []string {
			return []string{v.Name, v.ID, v.VPool, formatSize(v.Size), formatSize(v.Stored), formatTime(&v.TrashedAt), formatTime(&v.PurgeAt)}
		})
	})
	cmd.Flags().StringVar(&vpool, "vpool", "", "only those of this vPool")
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name or labels contain this")
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

func (a *app) trashRestore() *cobra.Command {
	var name string
	cmd := &cobra.Command{Use: "restore NAME", Short: "Take a vDisk out of the trash", Args: names("NAME"), ValidArgsFunction: a.completeTrash}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		v, err := client.Get[client.VDisk](api.RestoreTrash(ctx, args[0], client.RestoreInput{Name: given(name)}))
		if err != nil {
			return err
		}
		return a.printVDisk(v)
	})
	cmd.Long = "Take a vDisk out of the trash, by name or id, with its data, snapshots and labels. It is not published."
	cmd.Flags().StringVar(&name, "name", "", "name to give it (default the one that it had)")
	return cmd
}

func (a *app) trashPurge() *cobra.Command {
	var all bool
	var vpool string
	cmd := &cobra.Command{Use: "purge [NAME]", Short: "Delete vDisks in the trash for good", ValidArgsFunction: a.completeTrash}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if len(args) > 1 || all == (len(args) == 1) || vpool != "" && !all {
			return usagef("trash purge: give a NAME, or --all with or without --vpool")
		}
		question := "Delete the vDisks in the trash and all their data, for good?"
		if !all {
			question = "Delete vDisk " + args[0] + " in the trash and all its data, for good?"
		}
		if err := a.confirm(ctx, question); err != nil {
			return err
		}
		if !all {
			return client.Done(api.PurgeTrash(ctx, args[0]))
		}
		list, err := listTrash(ctx, api, vpool, "")
		if err != nil {
			return err
		}
		for _, v := range list {
			if err := client.Done(api.PurgeTrash(ctx, v.ID)); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	cmd.Flags().StringVar(&vpool, "vpool", "", "with --all: those of this vPool")
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

// completeTrash offers names of vDisks in the trash.
func (a *app) completeTrash(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.TrashList](api.ListTrash(ctx, &client.ListTrashParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, v := range l.Items {
			all = append(all, v.Name)
		}
		return all, err
	})
}
