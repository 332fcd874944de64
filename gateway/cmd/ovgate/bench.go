package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/bench"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

const (
	// benchInitiator is the host that measures a vDisk.
	benchInitiator = "iqn.2026-11.io.ovgate:bench"
	// benchCleanup bounds how long the vDisk's end is waited for.
	benchCleanup = 2 * time.Minute
)

// bench returns the verbs that measure.
func (a *app) bench() *cobra.Command {
	return group("bench", "What a disk, a network and a vDisk give, with a verdict", a.benchDisk(), a.benchNetwork(), a.benchVDisk())
}

// printFigures prints what was measured.
func (a *app) printFigures(all []bench.Figure) error {
	round := func(d time.Duration) string {
		if d == 0 {
			return "-"
		}
		return d.Round(max(time.Microsecond, d/1000)).String()
	}
	return printList(a, all, []string{"MEASURED", "PER SECOND", "MB/S", "P50", "P99", "VERDICT", "MEANS"}, func(f bench.Figure) []string {
		rate := "-"
		if f.Rate > 0 {
			rate = strconv.FormatFloat(f.Rate, 'f', 0, 64)
		}
		return []string{f.Name, rate, strconv.FormatFloat(f.Bytes/1e6, 'f', 0, 64), round(f.P50), round(f.P99), string(f.Verdict), f.Says}
	})
}

func (a *app) benchDisk() *cobra.Command {
	var o bench.DiskOptions
	size := sizeFlag{bytes: 1 << 30}
	cmd := &cobra.Command{
		Use:   "disk DIR",
		Short: "Measure the disk that a directory is on",
		Long: "Measure the disk that a directory is on, past the page cache, with a file that has no name there and goes with the command:\n" +
			"durable 4 KiB writes one at a time, which journals and the registry live on, writes and reads in sequence, and random reads.\n" +
			"The verdict says which role the disk is for. Other work on the disk counts in. It works without a node.",
		Example: "  ovgate bench disk /mnt/nvme0 --size 4GiB --time 10s",
		Args:    names("DIR"),
	}
	cmd.Flags().Var(&size, "size", "of the file; twice that has to be free")
	cmd.Flags().DurationVar(&o.Each, "time", 5*time.Second, "of each of the four loads")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		if a.url != "" {
			return usagef("bench disk measures a disk of this machine; --url has no meaning there")
		}
		o.Bytes = size.bytes
		all, err := bench.Disk(cmd.Context(), args[0], o)
		if err != nil {
			return fmt.Errorf("bench disk: %w", err)
		}
		return a.printFigures(all)
	}
	return cmd
}

func (a *app) benchNetwork() *cobra.Command {
	listen := ""
	each := 5 * time.Second
	cmd := &cobra.Command{
		Use:   "network [ADDRESS]",
		Short: "Measure the way to another machine and back",
		Long: "Measure the way to another machine and back: the round trip of 4 KiB, which mirrored writes wait for, and the bandwidth of\n" +
			"both directions. On one machine it listens, on an address of the network that is meant, until Ctrl-C, and prints a token;\n" +
			"on the other one it is given that address, and the token on standard input or in --token-file. What crosses the network is\n" +
			"noise, not encrypted. It works without nodes.",
		Example: "  ovgate bench network --listen 10.0.1.5:9999 >token   # on one machine\n" +
			"  ovgate bench network 10.0.1.5:9999 --token-file token   # on the other one",
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&listen, "listen", "", "IP:PORT to listen on, instead of measuring")
	cmd.Flags().DurationVar(&each, "time", each, "of each of the three loads")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		switch {
		case a.url != "":
			return usagef("bench network is between two machines that run it; --url has no meaning there")
		case (listen == "") == (len(args) == 0):
			return usagef("bench network: name the address of the machine that listens, or --listen on that one")
		case listen != "":
			return a.benchListen(cmd.Context(), listen)
		}
		var token string
		var err error
		if a.tokenFile != "" {
			token, err = client.ReadToken(a.env, a.tokenFile)
		} else {
			token, err = a.password(cmd.Context(), "token of the machine that listens", a.terminal == nil, false)
		}
		if err != nil {
			return err
		}
		all, err := bench.Network(cmd.Context(), args[0], token, each)
		if err != nil {
			return fmt.Errorf("bench network: %w", err)
		}
		return a.printFigures(all)
	}
	return cmd
}

// benchListen answers other machines until the command ends.
func (a *app) benchListen(ctx context.Context, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("bench network: %w", err)
	}
	token := bench.NewToken()
	if _, err := fmt.Fprintln(a.out, token); err != nil {
		return errors.Join(err, l.Close())
	}
	a.hint("listens on " + l.Addr().String() + " until Ctrl-C; on the other machine: ovgate bench network " + l.Addr().String() + ", with this token")
	return bench.Serve(ctx, l, token)
}

func (a *app) benchVDisk() *cobra.Command {
	size := sizeFlag{bytes: 4 << 30}
	each := 5 * time.Second
	node := ""
	cmd := &cobra.Command{
		Use:   "vdisk VPOOL",
		Short: "Measure a vDisk of a vPool over iSCSI, end to end",
		Long: "Measure a vDisk of a vPool end to end: one is made, published, written and read over iSCSI from this machine, and deleted for\n" +
			"good. Its backend gets what is written meanwhile. With bench disk of the journal's disk and bench network beside it the\n" +
			"figures tell what limits.",
		Example: "  ovgate bench vdisk gold --size 8GiB --time 30s",
		Args:    names("VPOOL"), ValidArgsFunction: a.completeVPools,
	}
	cmd.Flags().Var(&size, "size", "of the vDisk")
	cmd.Flags().DurationVar(&each, "time", each, "of each of the four loads")
	cmd.Flags().StringVar(&node, "node", "", "node that is to serve it")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) (err error) {
		name := "bench-" + rand.Text()[:8]
		in := client.VDiskInput{Name: name, VPool: args[0], Size: size.bytes, Node: given(node)}
		if _, err := client.Get[client.VDisk](api.CreateVDisk(ctx, &client.CreateVDiskParams{IdempotencyKey: new(rand.Text())}, in)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, benchEnd(ctx, api, name)) }()
		c, err := client.Get[client.Connection](api.PublishVDisk(ctx, name, client.PublishInput{Initiators: &[]string{benchInitiator}}))
		if err != nil {
			return err
		}
		if len(c.Portals) == 0 {
			return fmt.Errorf("bench vdisk: no node shows vDisk %s to hosts: look at ovgate node list", name)
		}
		o := initiator.Options{Address: c.Portals[0].Address, Initiator: benchInitiator, Target: c.IQN, CHAPUser: c.ChapUser, CHAPSecret: c.ChapSecret}
		all, err := bench.VDisk(ctx, o, uint16(c.LUN), size.bytes, each)
		if err != nil {
			return fmt.Errorf("bench vdisk: %w", err)
		}
		return a.printFigures(all)
	})
	return cmd
}

// benchEnd deletes the vDisk that was measured, also when the command was interrupted.
func benchEnd(ctx context.Context, api *client.Client, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchCleanup)
	defer cancel()
	// The node may not have seen yet that the session of this command is over.
	err := client.Done(api.UnpublishVDisk(ctx, name, client.UnpublishInput{Force: new(true)}))
	if err == nil {
		err = client.Done(api.DeleteVDisk(ctx, name, &client.DeleteVDiskParams{Purge: new(true)}))
	}
	if err != nil {
		err = fmt.Errorf("vDisk %s is left: delete it with ovgate vdisk unpublish and ovgate vdisk delete --purge: %w", name, err)
	}
	return err
}
