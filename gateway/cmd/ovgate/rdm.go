package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// awaitRDM follows the job of an RDM disk to its end. nil: the disk is gone, as after a detach.
func (a *app) awaitRDM(ctx context.Context, api *client.Client, id string) (*client.RDM, error) {
	told := ""
	for {
		d, err := client.Get[client.RDM](api.GetRDM(ctx, id))
		var e *client.APIError
		if errors.As(err, &e) && e.Status == 404 {
			return nil, nil
		}
		if err != nil || d.Job == nil {
			return &d, err
		}
		if told = a.tellJob(*d.Job, told); ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(jobPoll):
				continue
			}
		}
		return nil, fmt.Errorf("rdm %s: %s goes on in the background: %w", d.Name, d.Job.Kind, ctx.Err())
	}
}

func (a *app) rdmAttach() *cobra.Command {
	var center, vm, mode string
	var shared, dryRun, noWait bool
	cmd := &cobra.Command{
		Use:   "attach VDISK",
		Short: "Give a virtual machine a vDisk as its disk",
		Long: "Give a virtual machine a vDisk as its disk (RDM). The hosts of its cluster are prepared and see the LUN before it is\n" +
			"mapped. It is done by a job that goes on when this ends, and after a restart of the node. With physical compatibility\n" +
			"the guest's SCSI commands go to the vDisk, reservations too; with virtual compatibility the disk is in snapshots of the\n" +
			"virtual machine. A vDisk with a datastore on it, or that something else uses, is refused.",
		Example:           "  ovgate vsphere rdm attach quorum --center prod --vm sql1 --shared --dry-run",
		Args:              names("VDISK"),
		ValidArgsFunction: a.completeVDisks,
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		for _, f := range [][2]string{{"center", center}, {"vm", vm}} {
			if f[1] == "" {
				return usagef("vsphere rdm attach: --%s is missing", f[0])
			}
		}
		in := client.RDMInput{VDisk: args[0], Center: center, VM: vm, Shared: &shared, DryRun: &dryRun}
		if mode != "" {
			in.Mode = new(client.RDMInputMode(mode))
		}
		r, err := client.Get[client.RDMResult](api.AttachRDM(ctx, &client.AttachRDMParams{IdempotencyKey: new(rand.Text())}, in))
		switch {
		case err != nil:
			return err
		case dryRun && a.output == outputJSON:
			return printJSON(a.out, r)
		case dryRun:
			return a.printActions(r.Actions)
		}
		d := &r.Rdm
		if !noWait {
			if d, err = a.awaitRDM(ctx, api, d.ID); err == nil && d == nil {
				err = fmt.Errorf("rdm %s was detached meanwhile", r.Rdm.Name)
			}
			if err != nil {
				return err
			}
		}
		return printOne(a, *d, rdmRows(*d))
	})
	f := cmd.Flags()
	f.StringVar(&center, "center", "", "registered vCenter")
	f.StringVar(&vm, "vm", "", "name or managed object id of the virtual machine")
	f.StringVar(&mode, "mode", "", "compatibility: physical or virtual (default physical)")
	f.BoolVar(&shared, "shared", false, "other virtual machines may have it, too, for guests that agree about it")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	f.BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}

func rdmRows(d client.RDM) [][]string {
	rows := [][]string{
		{"name", d.Name}, {"id", d.ID}, {"virtual machine", d.VMName}, {"vcenter", d.Center}, {"cluster", d.Cluster}, {"vdisk", d.VDisk}, {"lun", d.Naa},
		{"size", formatSize(d.Size)}, {"mode", d.Mode}, {"shared", yesNo(d.Shared)}, {"state", d.State},
	}
	if d.Job != nil {
		rows = append(rows, []string{"job", d.Job.Kind + ": " + d.Job.Step}, []string{"error", dash(d.Job.Error)})
	}
	return rows
}

func (a *app) rdmList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the vDisks that are disks of virtual machines", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.RDM, *string, error) {
			l, err := client.Get[client.RDMList](api.ListRDMs(ctx, &client.ListRDMsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "VM", "VCENTER", "CLUSTER", "SIZE", "MODE", "SHARED", "STATE", "JOB"}, func(d client.RDM) []string {
			job := ""
			if d.Job != nil {
				if job = d.Job.Kind + ": " + d.Job.Step; d.Job.Error != "" {
					job += ": " + d.Job.Error
				}
			}
			return []string{d.Name, d.VMName, d.Center, d.Cluster, formatSize(d.Size), d.Mode, yesNo(d.Shared), d.State, dash(job)}
		})
	})
	return cmd
}

func (a *app) rdmDetach() *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use: "detach RDM", Short: "Take a vDisk from a virtual machine", Args: names("RDM"),
		Long: "Take a vDisk from a virtual machine, and when no other has it from the hosts, in the one order that leaves no host with\n" +
			"a lost disk. The vDisk stays. It may replace an attach that does not get on.",
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.RDM](api.GetRDM(ctx, args[0]))
		var e *client.APIError
		if errors.As(err, &e) && e.Status == 404 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.confirm(ctx, "Take the disk "+d.Name+" from virtual machine "+d.VMName+"?"); err != nil {
			return err
		}
		if err := client.Done(api.DetachRDM(ctx, d.ID)); err != nil || noWait {
			return err
		}
		_, err = a.awaitRDM(ctx, api, d.ID)
		return err
	})
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}
