package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func (a *app) vdiskMove() *cobra.Command {
	var wait, cancel bool
	var node string
	cmd := a.vdiskVerb("move NAME [VPOOL]", "Take a vDisk to another vPool or node while it is in use", func(_ *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return usagef("vdisk move: give NAME and VPOOL, NAME and --node, or NAME and --cancel")
		}
		return nil
	},
		func(ctx context.Context, api *client.Client, args []string) error {
			if (cancel || node != "") != (len(args) == 1) {
				return usagef("vdisk move %s: give one of VPOOL, --node and --cancel", args[0])
			}
			switch {
			case cancel:
				if err := errors.Join(client.Done(api.CancelMoveVDisk(ctx, args[0])), client.Done(api.CancelVDiskHandover(ctx, args[0]))); err != nil {
					return err
				}
				return a.showVDisk(ctx, api, args[0])
			case node != "":
				return a.handOver(ctx, api, args[0], node, wait)
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
		"far it is. Asking again goes on with one that was given up.\n\n" +
		"With --node it goes to another node, in the vPool in which it is: ask the node that serves it. Initiators come back\n" +
		"to it at the portals of the other node."
	cmd.Example = "  ovgate vdisk move db1 fast --wait\n  ovgate vdisk move db1 --node n2 --wait"
	cmd.Flags().BoolVar(&wait, "wait", false, "return when it is done")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "stop it; what was copied is deleted")
	cmd.Flags().StringVar(&node, "node", "", "name or id of the node that is to serve it")
	cmd.MarkFlagsMutuallyExclusive("wait", "cancel")
	cmd.MarkFlagsMutuallyExclusive("node", "cancel")
	a.completeFlag(cmd, "node", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.completeNodes(cmd, nil, prefix)
	})
	return cmd
}

// handOver gives a vDisk to another node.
func (a *app) handOver(ctx context.Context, api *client.Client, name, node string, wait bool) error {
	v, err := client.Get[client.VDisk](api.HandOverVDisk(ctx, name, client.HandoverInput{Node: node}))
	if wait && err == nil {
		to := v.Node // where it was already
		if v.Handover != nil {
			to = v.Handover.Node
		}
		v, err = follow(ctx, v, func(v client.VDisk) bool { return handingOver(v, to) }, func() (client.VDisk, error) {
			return client.Get[client.VDisk](api.GetVDisk(ctx, v.ID))
		})
		if err == nil {
			err = handedOver(v, to)
		}
	}
	if err != nil {
		return err
	}
	return a.printVDisk(v)
}

// handingOver tells whether a vDisk is on its way to a node that is to serve it.
func handingOver(v client.VDisk, to string) bool {
	switch {
	case v.Handover != nil:
		return v.Handover.Failed == ""
	case v.Node != to:
		return v.State == client.VDiskStateElsewhere // says a node that does not know yet that it has it
	}
	return v.State == client.VDiskStateOpening || v.State == client.VDiskStateSuspended
}

// handedOver tells why a vDisk that is not on its way any more is not served by a node.
func handedOver(v client.VDisk, to string) error {
	switch {
	case v.Handover != nil:
		return fmt.Errorf("vdisk %s: it stays where it is: %s", v.Name, v.Handover.Failed)
	case v.Node != to:
		return fmt.Errorf("vdisk %s: it is at node %s: going to node %s was stopped", v.Name, v.Node, to)
	}
	switch v.State {
	case client.VDiskStateClosed, client.VDiskStateCorrupt, client.VDiskStateFailed, client.VDiskStateFenced, client.VDiskStateLostTail, client.VDiskStateWaiting:
		return fmt.Errorf("vdisk %s: it is at node %s, and is %s: %s", v.Name, v.Node, v.State, v.StateReason)
	}
	return nil
}

func (a *app) vdiskSteal() *cobra.Command {
	var accept bool
	cmd := a.vdiskVerb("steal NAME", "Take a vDisk over from a node that is down", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			v, err := client.Get[client.VDisk](api.StealVDisk(ctx, args[0], client.StealInput{AcceptLoss: &accept}))
			if err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Have the node that is asked serve a vDisk whose node is down. The newest writes may be in the journal of that node\n" +
		"only: then it needs --accept-loss, and these writes do not come back."
	cmd.Example = "  ovgate vdisk steal db1 --accept-loss"
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "do without the writes that only that node has")
	return cmd
}

// handoverText prints how far a hand-over is.
func handoverText(h *client.Handover) string {
	if h.Failed != "" {
		return h.Node + ", given up: " + h.Failed
	}
	return h.Node
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
