package main

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// defaultVPool is the vPool of a vDisk whose creator names none: the one that a
// new node is given.
const defaultVPool = "default"

// vdisk returns the verbs of vDisks.
func (a *app) vdisk() *cobra.Command {
	return group("vdisk", "vDisks: create, grow, publish",
		a.vdiskCreate(), a.vdiskList(), a.vdiskShow(), a.vdiskResize(), a.vdiskRename(), a.vdiskDelete(), a.vdiskClone(), a.vdiskFlatten(), a.vdiskMove(), a.vdiskSteal(), a.vdiskPerformance(), a.vdiskHistory(), a.vdiskRollback(), a.vdiskVerify(), a.vdiskImport(), a.vdiskExport(),
		a.vdiskBackup(), a.vdiskBackups(), a.vdiskRestore(),
		a.vdiskPublish(), a.vdiskUnpublish(), a.vdiskQoS(), a.vdiskCache(), a.vdiskSet(), a.vdiskCommit(), a.vdiskScrub(), a.vdiskAcceptLoss())
}

func (a *app) vdiskCreate() *cobra.Command {
	var size, cluster sizeFlag
	var vpool, node string
	var labels map[string]string
	cmd := &cobra.Command{
		Use:     "create NAME --size SIZE",
		Short:   "Create a vDisk",
		Example: "  ovgate vdisk create db1 --size 100GiB --vpool fast --label team=billing",
		Args:    names("NAME"),
	}
	f := cmd.Flags()
	f.Var(&size, "size", "size, such as 10GiB: a multiple of the cluster size, up to 64TiB")
	f.Var(&cluster, "cluster-size", "unit of mapping: 4, 8, 16, 32 or 64KiB (default the vPool's)")
	f.StringVar(&vpool, "vpool", defaultVPool, "name or id of the vPool")
	f.StringVar(&node, "node", "", "name or id of the node that is to serve it (default the one that is asked)")
	f.StringToStringVar(&labels, "label", nil, "label NAME=VALUE, kept with the vDisk on the backend; may be repeated")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if !size.set {
			return usagef("vdisk create %s: --size is missing", args[0])
		}
		in := client.VDiskInput{Name: args[0], VPool: vpool, Size: size.bytes, ClusterSize: cluster.ptr(), Node: given(node)}
		if len(labels) > 0 {
			in.Labels = new(client.Labels(labels))
		}
		v, err := client.Get[client.VDisk](api.CreateVDisk(ctx, &client.CreateVDiskParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printVDisk(v)
	})
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

func (a *app) vdiskList() *cobra.Command {
	var query, sort, vpool, node, state, dtl string
	cmd := &cobra.Command{Use: "list", Short: "List vDisks", Args: names()}
	f := cmd.Flags()
	f.StringVarP(&query, "query", "q", "", "only those whose name or labels contain this")
	f.StringVar(&vpool, "vpool", "", "only those of this vPool")
	f.StringVar(&node, "node", "", "only those that this node serves or is to serve")
	f.StringVar(&state, "state", "", "only those in this state")
	f.StringVar(&dtl, "dtl", "", "only those whose journal has a copy in this state: ok, catchup, degraded or off, of those that the node has open")
	f.StringVar(&sort, "sort", "", "name, created, size, stored, mapped, state, vpool, readIops, writeIops, iops or latency; - in front reverses")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		params := client.ListVDisksParams{Limit: new(pageSize), Q: given(query), VPool: given(vpool), Node: given(node), Sort: given(sort)}
		if state != "" {
			s := client.VDiskState(state)
			if !s.Valid() {
				return usagef("--state %s is not a state of a vDisk", state)
			}
			params.State = &s
		}
		if dtl != "" {
			s := client.DtlState(dtl)
			if !s.Valid() {
				return usagef("--dtl %s is not a state of a DTL: use ok, catchup, degraded or off", dtl)
			}
			params.Dtl = &s
		}
		items, err := client.All(func(cursor *string) ([]client.VDisk, *string, error) {
			params.Cursor = cursor
			l, err := client.Get[client.VDiskList](api.ListVDisks(ctx, &params))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		header := []string{"NAME", "VPOOL", "SIZE", "STATE", "MAPPED", "STORED", "DTL", "PUBLISHED", "SESSIONS"}
		if err := printList(a, items, header, vdiskRow); err != nil || a.output == outputJSON {
			return err
		}
		return a.printReasons(items)
	})
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

// maxReasons bounds the reasons below a list: with the backend of many vDisks
// away they all have the same one.
const maxReasons = 10

// printReasons says below a list why vDisks in it do not run.
func (a *app) printReasons(items []client.VDisk) error {
	var rows [][]string
	for _, v := range items {
		if v.StateReason == "" {
			continue
		}
		if len(rows) == maxReasons {
			rows = append(rows, []string{"there are more; ovgate vdisk show NAME tells about each"})
			break
		}
		rows = append(rows, []string{v.Name + " is " + stateText(string(v.State), v.StateReason)})
	}
	return printRows(a.out, rows)
}

// vdiskRow is a vDisk in a list.
func vdiskRow(v client.VDisk) []string {
	iqn, sessions := "-", "-"
	if v.Published != nil {
		iqn, sessions = v.Published.IQN, strconv.Itoa(v.Published.Sessions)
	}
	return []string{v.Name, v.VPool, formatSize(v.Size), string(v.State), formatSize(v.Mapped), formatSize(v.Stored), string(v.Dtl.State), iqn, sessions}
}

// vdiskVerb makes a verb that takes a vDisk and prints what show returns.
func (a *app) vdiskVerb(use, short string, args cobra.PositionalArgs, f call) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: a.online(f), ValidArgsFunction: a.completeVDisks}
}

func (a *app) vdiskShow() *cobra.Command {
	return a.vdiskVerb("show NAME", "Show a vDisk", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			return a.showVDisk(ctx, api, args[0])
		})
}

func (a *app) showVDisk(ctx context.Context, api *client.Client, name string) error {
	v, err := client.Get[client.VDisk](api.GetVDisk(ctx, name))
	if err != nil {
		return err
	}
	return a.printVDisk(v)
}

func (a *app) vdiskResize() *cobra.Command {
	return a.vdiskVerb("resize NAME SIZE", "Grow a vDisk to SIZE", names("NAME", "SIZE"),
		func(ctx context.Context, api *client.Client, args []string) error {
			size, err := parseSize(args[1])
			if err != nil {
				return usageError{err}
			}
			return a.vdiskPatch(ctx, api, args[0], client.VDiskPatch{Size: &size})
		})
}

func (a *app) vdiskRename() *cobra.Command {
	return a.vdiskVerb("rename NAME NEW", "Rename a vDisk; a published one keeps its target name", names("NAME", "NEW"),
		func(ctx context.Context, api *client.Client, args []string) error {
			return a.vdiskPatch(ctx, api, args[0], client.VDiskPatch{Name: &args[1]})
		})
}

// vdiskPatch changes a vDisk and prints it.
func (a *app) vdiskPatch(ctx context.Context, api *client.Client, name string, patch client.VDiskPatch) error {
	v, err := client.Get[client.VDisk](api.UpdateVDisk(ctx, name, patch))
	if err != nil {
		return err
	}
	return a.printVDisk(v)
}

func (a *app) vdiskDelete() *cobra.Command {
	var purge bool
	cmd := a.vdiskVerb("delete NAME", "Delete a vDisk, into the trash of its vPool", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			question := "Delete vDisk " + args[0] + "?"
			if purge {
				question = "Delete vDisk " + args[0] + " and all its data, for good?"
			}
			if err := a.confirm(ctx, question); err != nil {
				return err
			}
			return client.Done(api.DeleteVDisk(ctx, args[0], &client.DeleteVDiskParams{Purge: &purge}))
		})
	cmd.Long = "Delete a vDisk. Its vPool keeps it in the trash, for 24 hours unless it is set otherwise, where it counts in the\n" +
		"capacity and from where it can be restored: ovgate trash list. Its name is free at once."
	cmd.Flags().BoolVar(&purge, "purge", false, "not into the trash: its data go at once")
	return cmd
}

func (a *app) vdiskPublish() *cobra.Command {
	var open, rotate, mutual bool
	var initiators []string
	var target string
	var lun uint16
	var block int
	var cmd *cobra.Command
	cmd = a.vdiskVerb("publish NAME", "Publish a vDisk over iSCSI and print how to connect", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			in := client.PublishInput{RotateSecret: &rotate, Target: given(target)}
			if mutual {
				in.Mutual = &mutual
			}
			if block != 0 {
				in.BlockSize = &block
			}
			if cmd.Flags().Changed("lun") {
				in.LUN = new(int(lun))
			}
			if cmd.Flags().Changed("open") {
				in.Open = &open
			}
			if len(initiators) > 0 {
				in.Initiators = &initiators
			}
			c, err := client.Get[client.Connection](api.PublishVDisk(ctx, args[0], in))
			if err != nil {
				return err
			}
			return a.printConnection(c)
		})
	cmd.Long = "Publish a vDisk over iSCSI and print how to connect, the CHAP secret included.\n" +
		"Repeating it adds --initiator, sets --open when given, and prints the same. With --target it becomes a LUN\n" +
		"of a shared target, whose groups say who may sign in."
	cmd.Example = "  ovgate vdisk publish db1 --initiator iqn.2026-01.com.example:host1 --mutual\n  ovgate vdisk publish db1 --target cluster --lun 3"
	f := cmd.Flags()
	f.BoolVar(&open, "open", false, "let any initiator name sign in that knows the CHAP secret")
	f.StringArrayVar(&initiators, "initiator", nil, "iSCSI name that may sign in; may be repeated")
	f.BoolVar(&rotate, "rotate-secret", false, "draw new CHAP secrets")
	f.BoolVar(&mutual, "mutual", false, "let the target prove itself too, with a secret of its own")
	f.StringVar(&target, "target", "", "name of a shared target to place it in")
	f.Uint16Var(&lun, "lun", 0, "number in the shared target (default the lowest that is free)")
	f.IntVar(&block, "block-size", 0, "logical block size that hosts see, 512 or 4096 (default as it is, at first 512)")
	return cmd
}

func (a *app) vdiskUnpublish() *cobra.Command {
	var force bool
	cmd := a.vdiskVerb("unpublish NAME", "Stop publishing a vDisk", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if force {
				if err := a.confirm(ctx, "Take vDisk "+args[0]+" away from initiators that are signed in, if there are any?"); err != nil {
					return err
				}
			}
			return client.Done(api.UnpublishVDisk(ctx, args[0], client.UnpublishInput{Force: &force}))
		})
	cmd.Flags().BoolVar(&force, "force", false, "although initiators are signed in: drop the sessions on its own target, and tell those on a shared one")
	return cmd
}

func (a *app) vdiskCommit() *cobra.Command {
	return a.vdiskVerb("commit NAME", "Bring everything acknowledged so far to the backend", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			c, err := client.Get[client.Commit](api.CommitVDisk(ctx, args[0]))
			if err != nil {
				return err
			}
			return printOne(a, c, [][]string{
				{"vdisk", c.VDisk},
				{"epoch", strconv.FormatInt(c.Epoch, 10)},
				{"committed seq", strconv.FormatInt(c.CommittedSeq, 10)},
				{"last commit", formatTime(&c.LastCommit)},
			})
		})
}

func (a *app) vdiskAcceptLoss() *cobra.Command {
	return a.vdiskVerb("accept-loss NAME", "Serve a vDisk in state lost_tail without its lost writes", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if err := a.confirm(ctx, "Serve vDisk "+args[0]+" without the acknowledged writes it lost? They do not come back."); err != nil {
				return err
			}
			v, err := client.Get[client.VDisk](api.AcceptVDiskLoss(ctx, args[0]))
			if err != nil {
				return err
			}
			return a.printVDisk(v)
		})
}

// printVDisk prints a vDisk.
func (a *app) printVDisk(v client.VDisk) error {
	rows := [][]string{
		{"name", v.Name},
		{"id", v.ID},
		{"vpool", v.VPool},
		{"node", v.Node},
		{"state", stateText(string(v.State), v.StateReason)},
		{"size", formatSize(v.Size)},
		{"cluster size", formatSize(v.ClusterSize)},
		{"mapped", formatSize(v.Mapped)},
		{"stored", formatSize(v.Stored)},
		{"journal", formatSize(v.Journal.Used) + " of " + formatSize(v.Journal.Quota)},
		{"epoch", strconv.FormatInt(v.Epoch, 10)},
		{"committed seq", strconv.FormatInt(v.CommittedSeq, 10) + " of " + strconv.FormatInt(v.LastSeq, 10)},
		{"last commit", formatTime(v.LastCommit)},
		{"read", rateText(v.Performance.ReadIops, v.Performance.ReadBytesPerSecond, v.Performance.ReadP50Us, v.Performance.ReadP99Us)},
		{"write", rateText(v.Performance.WriteIops, v.Performance.WriteBytesPerSecond, v.Performance.WriteP50Us, v.Performance.WriteP99Us)},
	}
	if p := v.Published; p != nil {
		rows = append(rows, []string{"target", p.IQN}, []string{"lun", strconv.Itoa(p.LUN)}, []string{"sessions", strconv.Itoa(p.Sessions)})
	} else {
		rows = append(rows, []string{"target", "not published"})
	}
	if v.BlockSize != defaultBlockSize {
		rows = append(rows, []string{"block size", formatSize(int64(v.BlockSize))})
	}
	if v.Qos != nil {
		rows = append(rows, []string{"limits", qosText(v.Qos)})
	}
	if v.Cache != (client.CachePolicy{Mode: client.CachePolicyModeOnRead}) {
		rows = append(rows, []string{"read cache", cacheText(v.Cache, v.Cached)})
	}
	rows = append(rows, []string{"history", historyText(v.History)}, []string{"dtl", dtlText(v.Dtl)})
	if v.Parent != nil {
		rows = append(rows, []string{"parent", parentText(v.Parent)})
	}
	if v.Flatten != nil {
		rows = append(rows, []string{"flatten", flattenText(v.Flatten)})
	}
	if v.Move != nil {
		rows = append(rows, []string{"moves to", moveText(v.Move)})
	}
	if v.Handover != nil {
		rows = append(rows, []string{"goes to", handoverText(v.Handover)})
	}
	if v.Verified != nil {
		rows = append(rows, []string{"verified", verifiedText(v.Verified)})
	}
	for _, k := range slices.Sorted(maps.Keys(v.Labels)) {
		rows = append(rows, []string{"label", k + "=" + v.Labels[k]})
	}
	return printOne(a, v, append(rows, []string{"created", formatTime(&v.Created)}, []string{"observed", formatTime(&v.ObservedAt)}))
}

// rateText prints operations and bytes per second with the median and 99th
// percentile of their latency.
func rateText(iops, bytes, p50, p99 float64) string {
	return strconv.FormatFloat(iops, 'f', 0, 64) + " IOPS, " + formatSize(int64(bytes)) + "/s, p50 " +
		formatMicros(p50) + ", p99 " + formatMicros(p99)
}

// printConnection prints how to connect, with commands to paste.
func (a *app) printConnection(c client.Connection) error {
	admitted := strings.Join(c.Initiators, " ")
	if c.Open {
		admitted = "any"
	}
	if admitted == "" {
		admitted = "none yet; add one with ovgate target acl add " + c.VDisk + " INITIATOR"
	}
	rows := [][]string{
		{"vdisk", c.VDisk},
		{"target", c.IQN},
		{"lun", strconv.Itoa(c.LUN)},
		{"portals", portalsText(c.Portals)},
		{"initiators", admitted},
	}
	if c.ChapUser != "" {
		rows = append(rows, []string{"chap user", c.ChapUser}, []string{"chap secret", secretText(c.ChapSecret)})
	}
	if c.MutualUser != "" {
		rows = append(rows, []string{"mutual user", c.MutualUser}, []string{"mutual secret", secretText(c.MutualSecret)})
	}
	for _, to := range []struct{ on, run string }{
		{"libiscsi, qemu", c.Commands.Libiscsi},
		{"linux", c.Commands.Iscsiadm},
		{"esxi", c.Commands.Esxi},
		{"windows", c.Commands.Windows},
	} {
		label := to.on
		for _, line := range cleanLines(to.run) {
			rows = append(rows, []string{label, line})
			label = ""
		}
	}
	return printOne(a, c, rows)
}

// defaultBlockSize is the block size that is not worth a row.
const defaultBlockSize = 512

// secretText prints a secret, or why there is none to see.
func secretText(secret string) string {
	if secret == "" {
		return "as it was given, not shown"
	}
	return secret
}

// portalsText prints portals with their group tags.
func portalsText(portals []client.Portal) string {
	var all []string
	for _, p := range portals {
		all = append(all, p.Address+","+strconv.Itoa(p.Group))
	}
	return dash(strings.Join(all, " "))
}
