package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// jobPoll is the pause between looks at a datastore's job.
const jobPoll = 500 * time.Millisecond

// vsphere returns the verbs about vSphere.
func (a *app) vsphere() *cobra.Command {
	return group("vsphere", "vCenters and ESXi hosts, and VMFS datastores on vDisks",
		group("center", "vCenters, or ESXi hosts alone, that the node signs in to", a.centerAdd(), a.centerList(), a.centerShow(), a.centerTest(), a.centerSet(), a.centerDelete()),
		group("host", "Hosts of vCenters", a.centerHostList(), a.centerHostPrepare()),
		group("datastore", "VMFS datastores on vDisks", a.datastoreCreate(), a.datastoreImport(), a.datastoreList(), a.datastoreShow(), a.datastoreExpand(), a.datastoreRename(), a.datastoreSnapshot(), a.datastoreAttach(), a.datastoreRemove()),
		group("rdm", "vDisks as disks of virtual machines", a.rdmAttach(), a.rdmDetach(), a.rdmList()),
		group("plugin", "The plug-in of ovgate in the vSphere Client", a.pluginRegister(), a.pluginUnregister(), a.pluginStatus()),
		group("vm", "Virtual machines on datastores of ovgate", a.vmList()),
	)
}

// centerFlags are the flags that say how to sign in to a vCenter.
type centerFlags struct {
	cmd         *cobra.Command
	url, user   string
	thumbprint  string
	timeout     time.Duration
	events      bool
	mutual      bool
	secretStdin bool
}

func (c *centerFlags) add(cmd *cobra.Command) {
	c.cmd = cmd
	f := cmd.Flags()
	f.StringVar(&c.url, "address", "", "where the vCenter or host is, https://HOST")
	f.StringVar(&c.user, "user", "", "user, such as ovgate@vsphere.local")
	f.StringVar(&c.thumbprint, "thumbprint", "", "SHA-256 of the certificate to trust (default at first: the one that is there)")
	f.DurationVar(&c.timeout, "request-timeout", 0, "how long a request may take, 1s to 5m; five times that where a datastore is made (default 1m)")
	f.BoolVar(&c.events, "events", true, "tell the vCenter, in its events, what happens to datastores of ovgate")
	f.BoolVar(&c.mutual, "mutual-chap", false, "have its hosts demand that the target proves itself, from the next vsphere host prepare on")
	f.BoolVar(&c.secretStdin, "secret-stdin", false, "read the password from standard input")
}

// input returns what was given; any tells whether there was something.
func (c *centerFlags) input() (in client.CenterOptionsInput, any bool) {
	for _, x := range []struct {
		flag string
		from *string
		to   **string
	}{{"address", &c.url, &in.URL}, {"user", &c.user, &in.User}, {"thumbprint", &c.thumbprint, &in.Thumbprint}} {
		if c.cmd.Flags().Changed(x.flag) {
			*x.to, any = x.from, true
		}
	}
	if c.cmd.Flags().Changed("request-timeout") {
		in.TimeoutMs, any = new(c.timeout.Milliseconds()), true
	}
	if c.cmd.Flags().Changed("events") {
		in.Events, any = &c.events, true
	}
	if c.cmd.Flags().Changed("mutual-chap") {
		in.MutualChap, any = &c.mutual, true
	}
	return in, any
}

func (c *centerFlags) secret(ctx context.Context, a *app) (*string, error) {
	if !c.secretStdin {
		return nil, nil
	}
	s, err := a.secretLine(ctx, "secret")
	return &s, err
}

func (a *app) centerAdd() *cobra.Command {
	var flags centerFlags
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Register a vCenter, or an ESXi host alone, after what is needed of it was tried",
		Long: "Register a vCenter, or an ESXi host alone, after what is needed of it was tried; nothing there changes. The certificate\n" +
			"that it has is trusted from then on: compare the thumbprint that is printed, or give it. The password is kept sealed,\n" +
			"and shown nowhere.",
		Example: "  ovgate vsphere center add prod --address https://vcenter.example.org --user ovgate@vsphere.local --secret-stdin < password",
		Args:    names("NAME"),
	}
	flags.add(cmd)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.CenterInput{Name: args[0]}
		in.Options, _ = flags.input()
		var err error
		if in.Secret, err = flags.secret(ctx, a); err != nil {
			return err
		}
		r, err := client.Get[client.CenterResult](api.CreateCenter(ctx, &client.CreateCenterParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printCenterResult(r)
	})
	return cmd
}

func (a *app) centerList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the registered vCenters", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Center, *string, error) {
			l, err := client.Get[client.CenterList](api.ListCenters(ctx, &client.ListCentersParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "KIND", "ADDRESS", "USER", "VERSION", "HOSTS", "DATASTORES", "WARNINGS", "TESTED"}, func(c client.Center) []string {
			return []string{c.Name, c.Kind, c.Options.URL, c.Options.User, c.Version, strconv.Itoa(c.Hosts), strconv.Itoa(c.Datastores), strconv.Itoa(len(c.Warnings)), formatTime(&c.TestedAt)}
		})
	})
	return cmd
}

// centerVerb is a verb about a registered vCenter.
func (a *app) centerVerb(use, short string, f call) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: names(strings.Fields(use)[1:]...), ValidArgsFunction: a.completeCenters, RunE: a.online(f)}
}

func (a *app) centerShow() *cobra.Command {
	return a.centerVerb("show CENTER", "Show a registered vCenter", func(ctx context.Context, api *client.Client, args []string) error {
		c, err := client.Get[client.Center](api.GetCenter(ctx, args[0]))
		if err != nil {
			return err
		}
		return printOne(a, c, centerRows(c))
	})
}

func (a *app) centerTest() *cobra.Command {
	cmd := a.centerVerb("test CENTER", "Try what is needed of a registered vCenter", func(ctx context.Context, api *client.Client, args []string) error {
		r, err := client.Get[client.CenterResult](api.TestCenter(ctx, args[0]))
		if err != nil {
			return err
		}
		if err := a.printCenterResult(r); err != nil {
			return err
		}
		return allWork("vsphere center "+args[0], r.Steps)
	})
	cmd.Long = "Try what is needed of a registered vCenter, without changing anything there. It ends with an error when something\n" +
		"does not work."
	return cmd
}

func (a *app) centerSet() *cobra.Command {
	var flags centerFlags
	var name string
	cmd := a.centerVerb("set CENTER", "Rename a registered vCenter, or change how to sign in", func(ctx context.Context, api *client.Client, args []string) error {
		in := client.CenterPatch{Name: given(name)}
		if o, any := flags.input(); any {
			in.Options = &o
		}
		var err error
		if in.Secret, err = flags.secret(ctx, a); err != nil {
			return err
		}
		if in.Name == nil && in.Options == nil && in.Secret == nil {
			return usagef("vsphere center set %s: nothing to change was given", args[0])
		}
		r, err := client.Get[client.CenterResult](api.UpdateCenter(ctx, args[0], in))
		if err != nil {
			return err
		}
		return a.printCenterResult(r)
	})
	cmd.Long = "Rename a registered vCenter, or change how to sign in, which is tried before it is kept. Another address or\n" +
		"certificate needs the password again."
	flags.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "new name")
	return cmd
}

func (a *app) centerDelete() *cobra.Command {
	cmd := a.centerVerb("delete CENTER", "Forget a registered vCenter", func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Forget vCenter "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteCenter(ctx, args[0]))
	})
	cmd.Long = "Forget a registered vCenter. Nothing there changes. It is refused while it has datastores of ovgate."
	return cmd
}

func (a *app) printCenterResult(r client.CenterResult) error {
	return printOne(a, r, append(centerRows(r.Center), stepRows(r.Steps)...))
}

func centerRows(c client.Center) [][]string {
	rows := [][]string{
		{"name", c.Name}, {"id", c.ID}, {"kind", c.Kind}, {"address", c.Options.URL}, {"user", c.Options.User}, {"thumbprint", c.Options.Thumbprint},
		{"request timeout", formatMillis(c.Options.TimeoutMs)}, {"version", c.Version}, {"hosts", strconv.Itoa(c.Hosts)}, {"datastores", strconv.Itoa(c.Datastores)},
		{"told events", yesNo(c.Options.Events)}, {"mutual CHAP", yesNo(c.Options.MutualChap)}, {"tested", formatTime(&c.TestedAt)},
	}
	for _, w := range c.Warnings {
		rows = append(rows, []string{"warning", w})
	}
	return rows
}

func (a *app) centerHostList() *cobra.Command {
	var cluster string
	cmd := a.centerVerb("list CENTER", "List the hosts of a vCenter", func(ctx context.Context, api *client.Client, args []string) error {
		items, err := client.All(func(cursor *string) ([]client.CenterHost, *string, error) {
			l, err := client.Get[client.CenterHostList](api.ListCenterHosts(ctx, args[0], &client.ListCenterHostsParams{Limit: new(pageSize), Cursor: cursor, Cluster: given(cluster)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "CLUSTER", "VERSION", "STATE", "MAINTENANCE"}, func(h client.CenterHost) []string {
			return []string{h.Name, h.Cluster, dash(h.Version), h.State, yesNo(h.Maintenance)}
		})
	})
	cmd.Flags().StringVar(&cluster, "cluster", "", "only those of this cluster")
	return cmd
}

func (a *app) printActions(actions []client.HostAction) error {
	rows := [][]string{{"HOST", "ACTION", "DETAIL"}}
	for _, x := range actions {
		rows = append(rows, []string{dash(x.Host), x.Action, x.Detail})
	}
	return printRows(a.out, rows)
}

func (a *app) centerHostPrepare() *cobra.Command {
	var cluster string
	var dryRun, rotate bool
	cmd := a.centerVerb("prepare CENTER", "Prepare the hosts of a cluster for datastores of ovgate", func(ctx context.Context, api *client.Client, args []string) error {
		p, err := client.Get[client.HostPlan](api.PrepareCenterHosts(ctx, args[0], client.PrepareInput{Cluster: given(cluster), DryRun: &dryRun, RotateSecrets: &rotate}))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, p)
		}
		return a.printActions(p.Actions)
	})
	cmd.Long = "Prepare the hosts of a cluster for datastores of ovgate: software iSCSI on, send targets at the portals of this node\n" +
		"with CHAP and timeouts, rescan. Nothing else of a host changes. datastore create does it by itself; use this for hosts\n" +
		"that came since, and then vsphere datastore attach. With --rotate-secrets the CHAP secrets of the cluster are new ones:\n" +
		"sessions stay, and it is refused while a host is not connected, which would not get in again."
	cmd.Flags().StringVar(&cluster, "cluster", "", "name or managed object id of the cluster")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&rotate, "rotate-secrets", false, "draw new CHAP secrets")
	return cmd
}

// datastoreVerb is a verb about a datastore.
func (a *app) datastoreVerb(use, short string, f call) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: names(strings.Fields(use)[1:]...), ValidArgsFunction: a.completeDatastores, RunE: a.online(f)}
}

// await follows a datastore's job to its end, unless that is not wanted. nil: the
// datastore is gone, as after a removal.
func (a *app) awaitJob(ctx context.Context, api *client.Client, id string) (*client.Datastore, error) {
	told := ""
	for {
		d, err := client.Get[client.Datastore](api.GetDatastore(ctx, id))
		var e *client.APIError
		if errors.As(err, &e) && e.Status == 404 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if d.Job == nil {
			return &d, nil
		}
		told = a.tellJob(*d.Job, told)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("datastore %s: %s goes on in the background: %w", d.Name, d.Job.Kind, ctx.Err())
		case <-time.After(jobPoll):
		}
	}
}

// tellJob tells how a job goes unless that is what was told, and returns it.
func (a *app) tellJob(j client.DatastoreJob, told string) string {
	text := j.Step
	if j.Error != "" {
		text += ": " + j.Error
	}
	if text != told {
		fmt.Fprintln(a.err, clean(j.Kind+": "+text))
		if j.Error != "" {
			a.hint(j.Hint)
		}
	}
	return text
}

// afterJob prints a datastore, after its job unless noWait is set.
func (a *app) afterJob(ctx context.Context, api *client.Client, d client.Datastore, noWait bool) error {
	if !noWait {
		now, err := a.awaitJob(ctx, api, d.ID)
		if err != nil {
			return err
		}
		if now == nil {
			return fmt.Errorf("datastore %s was removed meanwhile", d.Name)
		}
		d = *now
	}
	return printOne(a, d, datastoreRows(d))
}

const noWaitUsage = "do not wait until it is done"

func (a *app) datastoreCreate() *cobra.Command {
	var center, cluster, vpool string
	var size sizeFlag
	var dryRun, noWait bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a VMFS datastore on a new vDisk, on every host of a cluster",
		Long: "Make a VMFS datastore on a new vDisk, on every host of a cluster. The hosts are prepared for it. It is made by a job\n" +
			"that goes on when this ends, and after a restart of the node; hosts that are away are left out, and get it by\n" +
			"vsphere datastore attach.",
		Example: "  ovgate vsphere datastore create gold1 --center prod --cluster Compute --vpool fast --size 10TiB --dry-run",
		Args:    names("NAME"),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.DatastoreInput{Name: args[0], Center: center, Cluster: given(cluster), VPool: vpool, Size: size.bytes, DryRun: &dryRun}
		for _, f := range [][2]string{{"center", center}, {"vpool", vpool}} {
			if f[1] == "" {
				return usagef("vsphere datastore create: --%s is missing", f[0])
			}
		}
		r, err := client.Get[client.DatastoreResult](api.CreateDatastore(ctx, &client.CreateDatastoreParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		switch {
		case dryRun && a.output == outputJSON:
			return printJSON(a.out, r)
		case dryRun:
			return a.printActions(r.Actions)
		}
		return a.afterJob(ctx, api, r.Datastore, noWait)
	})
	f := cmd.Flags()
	f.StringVar(&center, "center", "", "registered vCenter")
	f.StringVar(&cluster, "cluster", "", "name or managed object id of the cluster; not for an ESXi host alone")
	f.StringVar(&vpool, "vpool", "", "vPool of the vDisk")
	f.Var(&size, "size", "size of the vDisk, such as 10TiB")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	f.BoolVar(&noWait, "no-wait", false, noWaitUsage)
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

func (a *app) datastoreImport() *cobra.Command {
	var center, cluster, vdisk string
	var noWait bool
	cmd := &cobra.Command{
		Use:   "import NAME",
		Short: "Make the volume on a clone of a datastore's vDisk a datastore of its own",
		Long: "Make the volume on a clone of a datastore's vDisk a datastore of its own, beside the original: the clone is published,\n" +
			"its volume resignatured, renamed and mounted on every host of the cluster.",
		Example: "  ovgate vdisk clone gold1 gold1-monday --snapshot monday\n" +
			"  ovgate vsphere datastore import monday --vdisk gold1-monday --center prod --cluster Compute",
		Args: names("NAME"),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		for _, f := range [][2]string{{"center", center}, {"vdisk", vdisk}} {
			if f[1] == "" {
				return usagef("vsphere datastore import: --%s is missing", f[0])
			}
		}
		in := client.ImportDatastoreInput{Name: args[0], Cluster: given(cluster), VDisk: vdisk}
		d, err := client.Get[client.Datastore](api.ImportDatastore(ctx, center, &client.ImportDatastoreParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.afterJob(ctx, api, d, noWait)
	})
	f := cmd.Flags()
	f.StringVar(&center, "center", "", "registered vCenter")
	f.StringVar(&cluster, "cluster", "", "name or managed object id of the cluster; not for an ESXi host alone")
	f.StringVar(&vdisk, "vdisk", "", "name or id of the vDisk, which is not published")
	f.BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}

func jobText(j *client.DatastoreJob) string {
	if j == nil {
		return "-"
	}
	text := j.Kind + ": " + j.Step
	if j.Error != "" {
		text += ", fails"
	}
	return text
}

func (a *app) datastoreList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the datastores that ovgate made", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Datastore, *string, error) {
			l, err := client.Get[client.DatastoreList](api.ListDatastores(ctx, &client.ListDatastoresParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "CENTER", "CLUSTER", "VPOOL", "SIZE", "STATE", "JOB"}, func(d client.Datastore) []string {
			return []string{d.Name, d.Center, d.Cluster, d.VPool, formatSize(d.Size), d.State, jobText(d.Job)}
		})
	})
	return cmd
}

func (a *app) vmList() *cobra.Command {
	var datastore string
	cmd := &cobra.Command{
		Use: "list", Short: "List the virtual machines on the datastores that ovgate made", Args: names(),
		Long: "List the virtual machines on the datastores that ovgate made. A vCenter that is away is told of, with what it had before.",
	}
	cmd.Flags().StringVar(&datastore, "datastore", "", "only those on this datastore")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		var sources []client.VirtualMachineSource
		items, err := client.All(func(cursor *string) ([]client.VirtualMachine, *string, error) {
			l, err := client.Get[client.VirtualMachineList](api.ListVMs(ctx, &client.ListVMsParams{Datastore: given(datastore), Limit: new(pageSize), Cursor: cursor}))
			sources = l.Sources
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		for _, s := range sources {
			if s.Problem != "" {
				fmt.Fprintf(a.err, "vCenter %s, as of %s: %s\n", clean(s.Center), formatTime(s.SeenAt), clean(s.Problem))
			}
		}
		return printList(a, items, []string{"NAME", "POWER", "HOST", "CENTER", "DATASTORES", "TEMPLATE"}, func(v client.VirtualMachine) []string {
			return []string{v.Name, v.Power, dash(v.Host), v.Center, strings.Join(v.Datastores, ", "), yesNo(v.Template)}
		})
	})
	return cmd
}

func datastoreRows(d client.Datastore) [][]string {
	rows := [][]string{
		{"name", d.Name}, {"id", d.ID}, {"center", d.Center}, {"cluster", d.Cluster}, {"vpool", d.VPool}, {"vdisk", dash(d.VDisk)}, {"lun", dash(d.Naa)},
		{"volume", dash(d.Volume)}, {"size", formatSize(d.Size)}, {"state", d.State},
	}
	for _, w := range d.Warnings {
		rows = append(rows, []string{"warning", w})
	}
	for _, s := range d.Snapshots {
		text := "virtual machines quiesced"
		bad := 0
		for _, m := range s.Machines {
			if !m.Quiesced {
				bad++
			}
		}
		switch {
		case s.Failed != "":
			text = "not made: " + s.Failed
		case bad > 0:
			text = fmt.Sprintf("%d of %d virtual machines not quiesced", bad, len(s.Machines))
		}
		if len(s.Group) > 0 {
			text += ", of " + strings.Join(s.Group, ", ")
		}
		rows = append(rows, []string{"snapshot " + s.Name, formatTime(&s.Time) + ", " + text})
		for _, m := range s.Machines {
			if !m.Quiesced {
				rows = append(rows, []string{"not quiesced", m.Error})
			}
		}
	}
	if j := d.Job; j != nil {
		rows = append(rows, []string{"job", fmt.Sprintf("%s, step %s of %s", j.Kind, j.Step, strings.Join(j.Steps, " "))})
		if j.Error != "" {
			rows = append(rows, []string{"error", fmt.Sprintf("%s (%d tries)", j.Error, j.Tries)}, []string{"hint", j.Hint})
		}
		for _, n := range j.Notes {
			rows = append(rows, []string{"note", n})
		}
	}
	return rows
}

func (a *app) datastoreShow() *cobra.Command {
	var live bool
	cmd := a.datastoreVerb("show DATASTORE", "Show a datastore", func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.Datastore](api.GetDatastore(ctx, args[0]))
		if err != nil || !live {
			return errors.Join(err, printIf(err == nil, func() error { return printOne(a, d, datastoreRows(d)) }))
		}
		l, err := client.Get[client.DatastoreLive](api.LookAtDatastore(ctx, args[0]))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, l)
		}
		rows := append(datastoreRows(d), []string{"capacity", formatSize(l.Capacity)}, []string{"free", formatSize(l.Free)}, []string{"stored", formatSize(l.Stored)},
			[]string{"virtual machines", strconv.Itoa(l.Vms)})
		if err := printRows(a.out, rows); err != nil {
			return err
		}
		fmt.Fprintln(a.out)
		rows = [][]string{{"HOST", "MOUNTED", "ACCESSIBLE", "POLICY", "PATHS", "NOTE"}}
		for _, h := range l.Hosts {
			active := 0
			for _, p := range h.Paths {
				if p.State == "active" {
					active++
				}
			}
			note := h.Away
			if note == "" {
				note = h.Reason
			}
			if note == "" {
				note = h.Refused
			}
			rows = append(rows, []string{h.Host, yesNo(h.Mounted), yesNo(h.Accessible), dash(h.Policy), fmt.Sprintf("%d of %d active", active, len(h.Paths)), dash(note)})
		}
		return printRows(a.out, rows)
	})
	cmd.Flags().BoolVar(&live, "live", false, "ask the vCenter for space, mounts and paths")
	return cmd
}

// printIf runs f when it is wanted.
func printIf(wanted bool, f func() error) error {
	if !wanted {
		return nil
	}
	return f()
}

func (a *app) datastoreExpand() *cobra.Command {
	var size sizeFlag
	var noWait bool
	cmd := a.datastoreVerb("expand DATASTORE", "Grow a datastore and its vDisk", func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.Datastore](api.ExpandDatastore(ctx, args[0], client.ExpandInput{Size: size.bytes}))
		if err != nil {
			return err
		}
		return a.afterJob(ctx, api, d, noWait)
	})
	cmd.Flags().Var(&size, "size", "new size of the vDisk")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}

func (a *app) datastoreRename() *cobra.Command {
	var noWait bool
	cmd := a.datastoreVerb("rename DATASTORE NAME", "Give a datastore another name, in the vCenter too", func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.Datastore](api.RenameDatastore(ctx, args[0], client.RenameInput{Name: args[1]}))
		if err != nil {
			return err
		}
		return a.afterJob(ctx, api, d, noWait)
	})
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}

func (a *app) datastoreSnapshot() *cobra.Command {
	var require, noWait bool
	var with []string
	var within time.Duration
	cmd := a.datastoreVerb("snapshot DATASTORE NAME", "Make a snapshot for which the virtual machines on a datastore are quiesced", func(ctx context.Context, api *client.Client, args []string) error {
		in := client.DatastoreSnapshotInput{Name: args[1], Require: new(require), Within: new(int64(within.Seconds()))}
		if len(with) > 0 {
			in.With = &with
		}
		d, err := client.Get[client.Datastore](api.SnapshotDatastore(ctx, args[0], in))
		if err != nil {
			return err
		}
		begun := d.Job
		if err := a.afterJob(ctx, api, d, noWait); err != nil || noWait {
			return err
		}
		if d, err = client.Get[client.Datastore](api.GetDatastore(ctx, d.ID)); err != nil {
			return err
		}
		for _, s := range d.Snapshots {
			if begun != nil && s.Time.Equal(begun.Started) && s.Failed != "" {
				return fmt.Errorf("datastore %s: snapshot %s was not made: %s", d.Name, s.Name, s.Failed)
			}
		}
		return nil
	})
	cmd.Long = `Make a snapshot of a datastore's vDisk. Before that the guests of its virtual machines that are on write out what they hold, each
into a snapshot at the vCenter, which is removed afterwards. To restore, clone the vDisk's snapshot, import the clone as a datastore, and
revert the virtual machines to the snapshots "ovgate-..." that they have there. --with names other datastores whose vDisks have the
snapshot at the same moment, all or none of them, for virtual machines with disks on several.`
	cmd.Example = "  ovgate vsphere datastore snapshot gold evening --with tin --require"
	cmd.Flags().StringSliceVar(&with, "with", nil, "other datastores at the same moment; may be repeated")
	cmd.Flags().BoolVar(&require, "require", false, "make none unless every virtual machine that is on is quiesced")
	cmd.Flags().DurationVar(&within, "within", 10*time.Minute, "make none later than this, 10s to 1h")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}

func (a *app) datastoreAttach() *cobra.Command {
	var noWait bool
	cmd := a.datastoreVerb("attach DATASTORE", "Give a datastore to the hosts of its cluster that do not have it", func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.Datastore](api.AttachDatastore(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.afterJob(ctx, api, d, noWait)
	})
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}

func (a *app) datastoreRemove() *cobra.Command {
	var keep, noWait bool
	cmd := a.datastoreVerb("remove DATASTORE", "Remove a datastore without virtual machines, and its vDisk", func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.Datastore](api.GetDatastore(ctx, args[0]))
		var e *client.APIError
		if errors.As(err, &e) && e.Status == 404 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.confirm(ctx, "Destroy datastore "+d.Name+" and what is on it?"); err != nil {
			return err
		}
		if err := client.Done(api.RemoveDatastore(ctx, d.ID, &client.RemoveDatastoreParams{KeepVDisk: &keep})); err != nil || noWait {
			return err
		}
		_, err = a.awaitJob(ctx, api, d.ID)
		return err
	})
	cmd.Long = "Remove a datastore without virtual machines, and its vDisk, in the one order that leaves no host with a lost disk:\n" +
		"destroy it, detach its LUN on every host, unmap that, have the hosts forget it, delete the vDisk (into the trash of its\n" +
		"vPool)."
	cmd.Flags().BoolVar(&keep, "keep-vdisk", false, "the vDisk stays, with an empty LUN")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, noWaitUsage)
	return cmd
}
