package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/node"
	"github.com/openvstorage/ovgate/internal/client"
)

// metadata returns the verbs for copies of the registry.
func (a *app) metadata() *cobra.Command {
	return group("metadata", "The registry of a node or cluster: back up, verify, restore", a.metadataBackup(), a.metadataVerify(), a.metadataRestore(), a.metadataRecover(), a.metadataStatus(), a.metadataAccept())
}

func (a *app) metadataBackup() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a consistent copy of the metadata to a file",
		Long: "Write the registry as of one revision to FILE: vPools, vDisks, targets, users, schedules, the object store's devices,\n" +
			"and where the state of each vDisk is. Everything goes on meanwhile. No data of vDisks is in it. In a cluster it is that of\n" +
			"all nodes. The file is checked before it gets its name, and is for its owner only: names, labels, addresses and hashes of\n" +
			"passwords are in it. Secrets, such as CHAP secrets and keys of stores, are sealed with seal.key of the data directory,\n" +
			"which is not in it.\n\n" +
			"Keep beside it, from the data directory of each node: seal.key, node.json, cluster.json and tls/ if they are there,\n" +
			"alba/wrap.key or the alba_key_file, and the configuration file.",
		Example: "  ovgate metadata backup /mnt/backup/ovgate-metadata.gz",
		Args:    names("FILE"),
	}
	cmd.Flags().BoolVar(&force, "force", false, "overwrite FILE")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		file := args[0]
		if _, err := os.Lstat(file); err == nil && !force {
			return usagef("metadata backup: %s exists: name another file, or overwrite it with --force", file)
		}
		resp, err := api.BackUpMetadata(ctx)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return client.Done(resp, nil)
		}
		s, err := writeBackup(file, resp.Body, force)
		if err != nil {
			return fmt.Errorf("the backup was not written: %w", err)
		}
		return a.printBackup(file, s)
	})
	return cmd
}

// writeBackup writes a backup to a file of another name, checks it, and gives it its name.
func writeBackup(file string, from io.Reader, force bool) (s node.MetadataSummary, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*") // mode 0600
	if err != nil {
		return s, err
	}
	defer func() {
		if rerr := os.Remove(f.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}()
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		s, err = node.ReadMetadata(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return s, err
	}
	if force {
		err = os.Rename(f.Name(), file)
	} else {
		err = os.Link(f.Name(), file) // not over a file that came meanwhile
	}
	if err != nil {
		return s, err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return s, err
	}
	return s, errors.Join(dir.Sync(), dir.Close())
}

func (a *app) metadataVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a copy of the metadata, and show what it holds",
		Long: "Read a file of ovgate metadata backup to its end, check its checksum, and show whose metadata it holds, when it was made and\n" +
			"how many records of each kind it has. No node is asked.",
		Example: "  ovgate metadata verify /mnt/backup/ovgate-metadata.gz",
		Args:    names("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.checkFlags(); err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			s, err := node.ReadMetadata(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.printBackup(args[0], s)
		},
	}
}

// backupView is a backup as JSON.
type backupView struct {
	File     string         `json:"file"`
	Cluster  string         `json:"cluster"`
	ID       string         `json:"clusterId"`
	Node     string         `json:"node"`
	Version  string         `json:"version"`
	Made     time.Time      `json:"madeAt"`
	Revision int64          `json:"revision"`
	Records  int64          `json:"records"`
	Kinds    map[string]int `json:"kinds"`
}

func viewBackup(file string, s node.MetadataSummary) backupView {
	return backupView{File: file, Cluster: s.Cluster.Name, ID: s.Cluster.ID, Node: s.Node.Name, Version: s.Version, Made: s.Made, Revision: s.Revision, Records: s.Records, Kinds: s.Kinds}
}

func (a *app) printBackup(file string, s node.MetadataSummary) error {
	rows := [][]string{
		{"file", file}, {"cluster", s.Cluster.Name}, {"cluster id", s.Cluster.ID}, {"made", formatTime(&s.Made)}, {"made by", s.Node.Name + ", ovgate " + s.Version},
		{"revision", strconv.FormatInt(s.Revision, 10)}, {"records", strconv.FormatInt(s.Records, 10)},
	}
	for _, k := range slices.Sorted(maps.Keys(s.Kinds)) {
		rows = append(rows, []string{"  " + k, strconv.Itoa(s.Kinds[k])})
	}
	return printOne(a, viewBackup(file, s), rows)
}

func (a *app) metadataRestore() *cobra.Command {
	var o node.RestoreOptions
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a copy of the metadata in the place of a lost registry",
		Long: "Restore a file of ovgate metadata backup to the registry of a node that is stopped, in --data, or to the etcd that --config or\n" +
			"that data directory names, with all nodes stopped. It refuses a registry with records, unless --replace names the cluster, or\n" +
			"the only node, that they are of; they are kept in a file. It refuses a registry that is in use. A file that is damaged changes\n" +
			"nothing. When it is cut off, kv.db is what it was; in etcd the nodes do not start until it was run again.\n\n" +
			"Bring back seal.key and node.json of the data directory first. After the start each vDisk has its newest state, which its backend\n" +
			"tells; vDisks made after the backup are listed by ovgate metadata status, and come back with ovgate vpool recover. Nothing is deleted from\n" +
			"a backend before all vDisks of its vPool were compared. What the backup holds of users, targets and schedules is as it was then,\n" +
			"and vDisks that were in the trash are there again.",
		Example: "  ovgate metadata restore /mnt/backup/ovgate-metadata.gz --data /var/lib/ovgate\n" +
			"  ovgate metadata restore ovgate-metadata.gz --config /etc/ovgate/ovgate.yaml --replace lab",
		Args: names("FILE"),
	}
	f := cmd.Flags()
	f.StringVar(&o.Config, "config", "", "configuration file of the node, YAML")
	f.StringVar(&o.Replace, "replace", "", "name of the cluster, or of the only node, whose records are replaced")
	f.BoolVar(&o.NoSeal, "without-seal-key", false, "go on without the seal.key of the backup; its secrets are lost")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		if a.url != "" {
			return usagef("metadata restore works on this machine; --url has no meaning there")
		}
		o.File, o.Data = args[0], a.serveData()
		o.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
		r, err := node.RestoreMetadata(cmd.Context(), o)
		if err != nil {
			return err
		}
		rows := [][]string{{"cluster", r.Cluster.Name}, {"made", formatTime(&r.Made)}, {"records", strconv.FormatInt(r.Records, 10)}, {"restored to", r.Where}}
		if r.Kept != "" {
			rows = append(rows, []string{"replaced", "kept in " + r.Kept})
		}
		rows = append(rows, []string{"deletes", fmt.Sprintf("off in %d vPools until they were compared: start ovgate, and look at ovgate metadata status", r.VPools)})
		return printOne(a, struct {
			backupView
			Where  string `json:"restoredTo"`
			VPools int    `json:"vpools"`
			Kept   string `json:"replaced,omitempty"`
		}{viewBackup(o.File, r.MetadataSummary), r.Where, r.VPools, r.Kept}, rows)
	}
	return cmd
}

func (a *app) metadataRecover() *cobra.Command {
	var o node.RecoverOptions
	acceptLoss, rejoin := false, false
	cmd := &cobra.Command{
		Use:   "recover --data DIR --config FILE",
		Short: "Bring a registry back that lost most of its members",
		Long: "For a registry that nodes run, of whose members most are lost for good, so that no quorum answers. Stop all nodes. On the\n" +
			"one that ran longest run it with --accept-loss: at its next start its member goes on alone, without what only the others had.\n" +
			"On each other node that has a member run it with --rejoin before its next start: what its member had is put aside, and it\n" +
			"becomes one anew. Two of the old members that started without that would be a second registry.",
		Example: "  ovgate metadata recover --data /var/lib/ovgate --config /etc/ovgate/ovgate.yaml --accept-loss\n" +
			"  ovgate metadata recover --data /var/lib/ovgate --config /etc/ovgate/ovgate.yaml --rejoin",
		Args: names(),
	}
	f := cmd.Flags()
	f.StringVar(&o.Config, "config", "", "configuration file of the node, YAML")
	f.BoolVar(&acceptLoss, "accept-loss", false, "go on with what this node's member has")
	f.BoolVar(&rejoin, "rejoin", false, "put what this node's member has aside")
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		switch {
		case a.url != "":
			return usagef("metadata recover works on this machine; --url has no meaning there")
		case acceptLoss == rejoin:
			return usagef("metadata recover: say --accept-loss on the node that goes on, or --rejoin on another one")
		}
		o.Data, o.Alone = a.serveData(), acceptLoss
		o.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
		dir, err := node.RecoverRegistry(o)
		if err != nil {
			return err
		}
		next := "the member goes on alone at the next start"
		if rejoin {
			next = "the node becomes a member anew at the next start"
		}
		return printOne(a, struct {
			Dir  string `json:"dir"`
			Next string `json:"next"`
		}{dir, next}, [][]string{{"member", dir}, {"next", next}})
	}
	return cmd
}

func (a *app) metadataStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what a restore left to do",
		Long: "Show which vPools delete nothing since the metadata were restored, and what the comparison with their backends found: vDisks that\n" +
			"were in a newer state, that are missing, or that the metadata did not have (orphans). ovgate vpool recover registers orphans.",
		Args: names(),
		RunE: a.online(func(ctx context.Context, api *client.Client, _ []string) error {
			m, err := client.Get[client.Metadata](api.GetMetadata(ctx))
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				return printJSON(a.out, m)
			}
			return a.printRestored(m)
		}),
	}
}

func (a *app) metadataAccept() *cobra.Command {
	return &cobra.Command{
		Use:   "accept VPOOL VDISK...",
		Short: "Do without what keeps deletes off since a restore",
		Long: "Let the deletes of a vPool be on although the comparison cannot say what these vDisks need: their newest state on the backend cannot\n" +
			"be read, and there is no copy to bring back. They are named by the ids that ovgate metadata status shows as unclear, and left as they\n" +
			"are; what is deleted from now on may be what they need.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("metadata accept: give VPOOL and one VDISK or more")
			}
			return nil
		},
		RunE: a.online(func(ctx context.Context, api *client.Client, args []string) error {
			if err := a.confirm(ctx, fmt.Sprintf("Have deletes of vPool %s on, though they may take what %d vDisks need?", args[0], len(args)-1)); err != nil {
				return err
			}
			m, err := client.Get[client.Metadata](api.AcceptUnclearVDisks(ctx, client.AcceptInput{VPool: args[0], VDisks: args[1:]}))
			if err != nil {
				return err
			}
			if a.output == outputJSON {
				return printJSON(a.out, m)
			}
			return a.printRestored(m)
		}),
	}
}

func (a *app) printRestored(m client.Metadata) error {
	if len(m.VPools) == 0 {
		_, err := fmt.Fprintln(a.out, "The metadata were not restored.")
		return err
	}
	rows := [][]string{{"VPOOL", "DELETES", "BACKUP OF", "COMPARED", "NEWER", "MISSING", "ORPHANS", "UNCLEAR"}}
	rest := [][]string{{"VPOOL", "WHAT", "VDISK", "NAME", "WHY"}}
	for _, p := range m.VPools {
		deletes := "on"
		if p.DeletesOff {
			deletes = "off"
		}
		rows = append(rows, []string{p.VPool, deletes, formatTime(&p.BackupAt), strconv.Itoa(p.Compared), strconv.Itoa(p.Newer), strconv.Itoa(len(p.Missing)), strconv.Itoa(len(p.Orphans)), strconv.Itoa(len(p.Unclear))})
		for _, l := range []struct {
			what string
			of   []client.StrangeVDisk
		}{{"unclear", p.Unclear}, {"accepted", p.Accepted}, {"missing", p.Missing}, {"orphan", p.Orphans}} {
			for _, d := range l.of {
				rest = append(rest, []string{p.VPool, l.what, d.ID, dash(d.Name), d.Reason})
			}
		}
		if p.Reason != "" && len(p.Unclear) == 0 {
			rest = append(rest, []string{p.VPool, "deletes off", "-", "-", p.Reason})
		}
		if p.More {
			rest = append(rest, []string{p.VPool, "more", "-", "-", "there are more than are listed"})
		}
	}
	if err := printRows(a.out, rows); err != nil || len(rest) == 1 {
		return err
	}
	if _, err := fmt.Fprintln(a.out); err != nil {
		return err
	}
	return printRows(a.out, rest)
}
