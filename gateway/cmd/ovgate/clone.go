package main

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// pointFlags are the flags that name a point of a vDisk.
type pointFlags struct{ snapshot, at string }

func (p *pointFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.snapshot, "snapshot", "", "name or id of a snapshot")
	f.StringVar(&p.at, "at", "", "a time such as 2026-01-02T15:04:05Z: the newest recoverable moment at or before it")
}

// parse returns what was given.
func (p *pointFlags) parse() (snapshot *string, at *time.Time, err error) {
	if p.snapshot != "" && p.at != "" {
		return nil, nil, usagef("--snapshot and --at name two points; give one of them")
	}
	if p.at != "" {
		t, err := time.Parse(time.RFC3339Nano, p.at)
		if err != nil {
			return nil, nil, usagef("--at %s: write a time such as 2026-01-02T15:04:05Z", p.at)
		}
		at = &t
	}
	return given(p.snapshot), at, nil
}

func (a *app) vdiskClone() *cobra.Command {
	var point pointFlags
	var size sizeFlag
	var labels map[string]string
	cmd := a.vdiskVerb("clone VDISK NEW", "Make a vDisk NEW that starts from a point of VDISK; nothing is copied", names("VDISK", "NEW"),
		func(ctx context.Context, api *client.Client, args []string) error {
			in := client.CloneInput{Name: args[1], Size: size.ptr()}
			var err error
			if in.Snapshot, in.PointAt, err = point.parse(); err != nil {
				return err
			}
			if len(labels) > 0 {
				in.Labels = new(client.Labels(labels))
			}
			v, err := client.Get[client.VDisk](api.CloneVDisk(ctx, args[0], &client.CloneVDiskParams{IdempotencyKey: new(rand.Text())}, in))
			if err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Make a vDisk that starts from a snapshot, from a moment, or, with neither, from now. Nothing is copied.\n" +
		"Both can be written, grown and deleted independently."
	cmd.Example = "  ovgate vdisk clone db1 db1-test --snapshot before-upgrade"
	point.add(cmd)
	cmd.Flags().Var(&size, "size", "size, as large as the source or larger (default the same)")
	cmd.Flags().StringToStringVar(&labels, "label", nil, "label NAME=VALUE; may be repeated")
	return cmd
}

// parentText prints what a clone starts from.
func parentText(p *client.Parent) string {
	s := p.Name
	if s == "" {
		s = p.ID + " (deleted)"
	}
	switch {
	case p.Snapshot != "":
		s += ", snapshot " + p.Snapshot
	case p.PointAt != nil:
		s += ", at " + p.PointAt.UTC().Format(time.RFC3339Nano)
	}
	return s
}
