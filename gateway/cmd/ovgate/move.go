package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func (a *app) vdiskMove() *cobra.Command {
	var wait, cancel bool
	cmd := a.vdiskVerb("move NAME [VPOOL]", "Take a vDisk to another vPool while it is in use", func(_ *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return usagef("vdisk move: give NAME and VPOOL, or NAME and --cancel")
		}
		return nil
	},
		func(ctx context.Context, api *client.Client, args []string) error {
			if cancel != (len(args) == 1) {
				return usagef("vdisk move %s: give a VPOOL, or --cancel", args[0])
			}
			if cancel {
				if err := client.Done(api.CancelMoveVDisk(ctx, args[0])); err != nil {
					return err
				}
				return a.showVDisk(ctx, api, args[0])
			}
			v, err := client.Get[client.VDisk](api.MoveVDisk(ctx, args[0], client.MoveInput{VPool: args[1]}))
			if wait && err == nil {
				v, err = follow(ctx, v, func(v client.VDisk) bool { return v.Move != nil && v.Move.Failed == "" }, func() (client.VDisk, error) {
					return client.Get[client.VDisk](api.GetVDisk(ctx, v.ID))
				})
			}
			if err != nil {
				return err
			}
			if wait && v.Move != nil {
				return fmt.Errorf("vdisk %s: the move was given up: %s", v.Name, v.Move.Failed)
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Take a vDisk to another vPool with its id, snapshots, history and target. It goes on in the background and through\n" +
		"restarts, and yields to initiators, who notice nothing but a pause of some moments at its end; vdisk show tells how\n" +
		"far it is. Asking again goes on with one that was given up."
	cmd.Example = "  ovgate vdisk move db1 fast --wait"
	cmd.Flags().BoolVar(&wait, "wait", false, "return when it is done")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "stop it; what was copied is deleted")
	cmd.MarkFlagsMutuallyExclusive("wait", "cancel")
	return cmd
}

// moveText prints how far a move is.
func moveText(p *client.MoveProgress) string {
	switch {
	case p.Failed != "":
		return p.VPool + ", given up: " + p.Failed
	case p.Total == 0:
		return p.VPool + ", about to begin"
	}
	return fmt.Sprintf("%s, %s of %s copied", p.VPool, formatSize(p.Copied), formatSize(p.Total))
}
