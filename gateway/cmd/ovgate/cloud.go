package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// openstack returns the verbs about OpenStack.
func (a *app) openstack() *cobra.Command {
	return group("openstack", "OpenStack clouds whose Cinder has volumes on this node",
		group("cloud", "Clouds that the node signs in to", a.cloudCreate(), a.cloudList(), a.cloudShow(), a.cloudTest(), a.cloudSet(), a.cloudDelete(), a.cloudApply()),
		group("type", "Volume types that a cloud should have", a.typeSet(), a.typeDelete()),
		group("backend", "Backends of clouds that are this node", a.cloudBackendList()),
		group("volume", "Volumes of clouds, and their vDisks", a.cloudVolumeList(), a.cloudOrphans(), a.cloudUsage()),
		group("driver", "The volume driver that cinder-volume loads", a.driverConfig(), a.driverInstall(), a.driverUninstall()),
	)
}

// cloudFlags are the flags that say how to sign in to a cloud.
type cloudFlags struct {
	cmd         *cobra.Command
	o           client.CloudOptionsInput
	text        map[string]**string
	ca          string
	credential  bool
	timeout     time.Duration
	secretStdin bool
}

func (c *cloudFlags) add(cmd *cobra.Command) {
	c.cmd, c.text = cmd, map[string]**string{}
	f := cmd.Flags()
	text := func(name string, to **string, usage string) {
		f.String(name, "", usage)
		c.text[name] = to
	}
	text("auth-url", &c.o.URL, "where users sign in, https://HOST:5000/v3 (OS_AUTH_URL of an openrc file)")
	text("user", &c.o.User, "user that administers Cinder, or id of an application credential")
	text("domain", &c.o.Domain, "domain of the user (default Default)")
	text("project", &c.o.Project, "project that the user administers, admin for one")
	text("project-domain", &c.o.ProjectDomain, "domain of the project (default the user's)")
	f.BoolVar(&c.credential, "application-credential", false, "--user is the id of an application credential")
	text("region", &c.o.Region, "region in the catalog (default its first)")
	text("interface", &c.o.Interface, "which of the catalog's endpoints: public, internal or admin (default public)")
	f.StringVar(&c.ca, "cloud-ca", "", "file of certificates in PEM to trust in place of the system's; - for the system's again")
	f.DurationVar(&c.timeout, "request-timeout", 0, "how long the cloud may take to answer a request, 1s to 1m (default 30s)")
	f.BoolVar(&c.secretStdin, "secret-stdin", false, "read the password or secret from standard input")
}

// input returns what was given; any tells whether there was something.
func (c *cloudFlags) input() (in client.CloudOptionsInput, any bool, err error) {
	given := c.cmd.Flags().Changed
	for name, to := range c.text {
		if given(name) {
			v, err := c.cmd.Flags().GetString(name)
			if err != nil {
				return in, false, err
			}
			*to, any = &v, true
		}
	}
	in = c.o
	if given("cloud-ca") {
		pem := ""
		if c.ca != "-" {
			if pem, err = readBounded(c.ca, maxCA); err != nil {
				return in, false, err
			}
		}
		in.Ca, any = &pem, true
	}
	if given("application-credential") {
		in.ApplicationCredential, any = &c.credential, true
	}
	if given("request-timeout") {
		in.TimeoutMs, any = new(c.timeout.Milliseconds()), true
	}
	return in, any, nil
}

// secret reads the secret if it was asked for.
func (c *cloudFlags) secret(ctx context.Context, a *app) (*string, error) {
	if !c.secretStdin {
		return nil, nil
	}
	s, err := a.secretLine(ctx, "secret")
	return &s, err
}

func (a *app) cloudCreate() *cobra.Command {
	var flags cloudFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Register an OpenStack cloud, after what is needed of it was tried",
		Long: "Register an OpenStack cloud, after what is needed of it was tried; nothing there changes. The secret is kept sealed,\n" +
			"and shown nowhere.",
		Example: "  ovgate openstack cloud create prod --auth-url https://keystone.example.org:5000/v3 --user ovgate --project admin \\\n" +
			"    --secret-stdin < password",
		Args: names("NAME"),
	}
	flags.add(cmd)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.CloudInput{Name: args[0]}
		var err error
		if in.Options, _, err = flags.input(); err != nil {
			return err
		}
		if in.Secret, err = flags.secret(ctx, a); err != nil {
			return err
		}
		r, err := client.Get[client.CloudResult](api.CreateCloud(ctx, &client.CreateCloudParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printCloudResult(r)
	})
	return cmd
}

func (a *app) cloudList() *cobra.Command {
	var query string
	cmd := &cobra.Command{Use: "list", Short: "List the registered clouds", Args: names()}
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name contains this")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Cloud, *string, error) {
			l, err := client.Get[client.CloudList](api.ListClouds(ctx, &client.ListCloudsParams{Limit: new(pageSize), Cursor: cursor, Q: given(query)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "URL", "USER", "PROJECT", "BACKENDS", "WARNINGS", "TESTED"}, func(c client.Cloud) []string {
			o := c.Options
			return []string{c.Name, o.URL, o.User, dash(o.Project), dash(strings.Join(c.Backends, " ")), strconv.Itoa(len(c.Warnings)), formatTime(&c.TestedAt)}
		})
	})
	return cmd
}

// cloudVerb is a verb about a registered cloud.
func (a *app) cloudVerb(use, short string, f call) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: names(strings.Fields(use)[1:]...), ValidArgsFunction: a.completeClouds, RunE: a.online(f)}
}

func (a *app) cloudShow() *cobra.Command {
	return a.cloudVerb("show CLOUD", "Show a registered cloud", func(ctx context.Context, api *client.Client, args []string) error {
		c, err := client.Get[client.Cloud](api.GetCloud(ctx, args[0]))
		if err != nil {
			return err
		}
		return printOne(a, c, cloudRows(c))
	})
}

func (a *app) cloudTest() *cobra.Command {
	cmd := a.cloudVerb("test CLOUD", "Try what is needed of a registered cloud", func(ctx context.Context, api *client.Client, args []string) error {
		r, err := client.Get[client.CloudResult](api.TestCloud(ctx, args[0]))
		if err != nil {
			return err
		}
		if err := a.printCloudResult(r); err != nil {
			return err
		}
		return allWork("openstack cloud "+args[0], r.Steps)
	})
	cmd.Long = "Try what is needed of a registered cloud, without changing anything there. It ends with an error when something\n" +
		"does not work; what works and should be other is a warning."
	return cmd
}

func (a *app) cloudSet() *cobra.Command {
	var flags cloudFlags
	var name string
	cmd := a.cloudVerb("set CLOUD", "Rename a registered cloud, or change how to sign in", func(ctx context.Context, api *client.Client, args []string) error {
		in := client.CloudPatch{Name: given(name)}
		o, any, err := flags.input()
		if err != nil {
			return err
		}
		if any {
			in.Options = &o
		}
		if in.Secret, err = flags.secret(ctx, a); err != nil {
			return err
		}
		if in.Name == nil && in.Options == nil && in.Secret == nil {
			return usagef("openstack cloud set %s: nothing to change was given", args[0])
		}
		r, err := client.Get[client.CloudResult](api.UpdateCloud(ctx, args[0], in))
		if err != nil {
			return err
		}
		return a.printCloudResult(r)
	})
	cmd.Long = "Rename a registered cloud, or change how to sign in, which is tried before it is kept."
	flags.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "new name")
	return cmd
}

func (a *app) cloudDelete() *cobra.Command {
	cmd := a.cloudVerb("delete CLOUD", "Forget a registered cloud", func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Forget OpenStack cloud "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteCloud(ctx, args[0]))
	})
	cmd.Long = "Forget a registered cloud. Nothing there changes: its volumes and volume types stay, and the driver works as before."
	return cmd
}

func (a *app) cloudApply() *cobra.Command {
	var dryRun, prune bool
	cmd := a.cloudVerb("apply CLOUD", "Make volume types and QoS specs of a cloud", func(ctx context.Context, api *client.Client, args []string) error {
		p, err := client.Get[client.CloudPlan](api.ApplyCloud(ctx, args[0], client.CloudApplyInput{DryRun: &dryRun, Prune: &prune}))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, p)
		}
		rows := [][]string{{"ACTION", "KIND", "NAME", "DETAIL"}}
		for _, x := range p.Actions {
			rows = append(rows, []string{x.Action, x.Kind, x.Name, dash(x.Detail)})
		}
		if err := printRows(a.out, rows); err != nil {
			return err
		}
		done := "made"
		if p.DryRun {
			done = "to make: this is a dry run"
		}
		_, err = fmt.Fprintf(a.out, "changes %s: %d\n", done, p.Changes)
		return err
	})
	cmd.Long = "Make the volume types of a cloud, with their QoS specs, what openstack type set declared, or without any a type\n" +
		"ovgate-VPOOL per pool. What somebody else made is never changed: where that is in the way nothing is. It may be\n" +
		"repeated. Volumes get new limits when they are made, extended or retyped."
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&prune, "prune", false, "delete types that ovgate made and that are not declared any more; Cinder refuses those that have volumes")
	return cmd
}

func (a *app) typeSet() *cobra.Command {
	var in client.VolumeTypeInput
	var vpool, backend string
	var multiattach bool
	var iops, iopsPerGiB int64
	var bandwidth, bandwidthPerGiB sizeFlag
	var burst time.Duration
	cmd := a.cloudVerb("set CLOUD TYPE", "Declare a volume type of a cloud, or change it", func(ctx context.Context, api *client.Client, args []string) error {
		if vpool == "" {
			return usagef("openstack type set: --vpool is missing")
		}
		if burst%time.Millisecond != 0 {
			return usagef("--burst %v is not a whole number of milliseconds", burst)
		}
		in = client.VolumeTypeInput{VPool: vpool, Backend: given(backend), Multiattach: &multiattach, Limits: &client.VolumeLimits{
			Iops: iops, IopsPerGib: iopsPerGiB, BytesPerSecond: bandwidth.bytes, BytesPerSecondPerGib: bandwidthPerGiB.bytes, BurstMs: burst.Milliseconds(),
		}}
		c, err := client.Get[client.Cloud](api.SetVolumeType(ctx, args[0], args[1], in))
		if err != nil {
			return err
		}
		return printOne(a, c, cloudRows(c))
	})
	cmd.Long = "Declare a volume type of a cloud, or change it: all of it is given anew. openstack cloud apply makes it. Limits are for\n" +
		"reads and writes together; of a limit and one per GiB the lower counts."
	cmd.Example = "  ovgate openstack type set prod gold --vpool fast --iops 20000 --iops-per-gib 50\n  ovgate openstack cloud apply prod"
	f := cmd.Flags()
	f.StringVar(&vpool, "vpool", "", "vPool that its volumes are in")
	f.StringVar(&backend, "backend", "", "volume_backend_name, where several backends have this vPool")
	f.BoolVar(&multiattach, "multiattach", false, "its volumes may be attached to several hosts at once")
	f.Int64Var(&iops, "iops", 0, "commands per second")
	f.Int64Var(&iopsPerGiB, "iops-per-gib", 0, "commands per second for each GiB of the volume")
	f.Var(&bandwidth, "bandwidth", "bytes per second, such as 100MiB")
	f.Var(&bandwidthPerGiB, "bandwidth-per-gib", "bytes per second for each GiB of the volume")
	f.DurationVar(&burst, "burst", 0, "how much of a rate that was left unused may be caught up at once, as time, up to 1m (default 100ms)")
	if err := cmd.RegisterFlagCompletionFunc("vpool", a.completeVPoolFlag); err != nil {
		panic(err) // the flag is there
	}
	return cmd
}

func (a *app) typeDelete() *cobra.Command {
	cmd := a.cloudVerb("delete CLOUD TYPE", "Take the declaration of a volume type back", func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.DeleteVolumeType(ctx, args[0], args[1]))
	})
	cmd.Long = "Take the declaration of a volume type back. The type stays in the cloud until openstack cloud apply --prune."
	return cmd
}

func (a *app) cloudBackendList() *cobra.Command {
	return a.cloudVerb("list CLOUD", "List the backends of a cloud that are this node, by pool", func(ctx context.Context, api *client.Client, args []string) error {
		all, err := client.All(func(cursor *string) ([]client.CloudBackend, *string, error) {
			l, err := client.Get[client.CloudBackendList](api.ListCloudBackends(ctx, args[0], &client.ListCloudBackendsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printList(a, all, nil, nil)
		}
		rows := [][]string{{"HOST", "BACKEND", "STATE", "DRIVER", "POOL", "TOTAL", "FREE", "ALLOCATED"}}
		for _, b := range all {
			row := []string{b.Host, dash(b.Name), b.State, dash(b.Version)}
			for _, p := range b.Pools {
				pool := p.VPool
				if !p.Known {
					pool += " (no such vPool)"
				}
				rows = append(rows, append(row[:4:4], pool, formatSize(p.Total), formatSize(p.Free), formatSize(p.Allocated)))
			}
			if len(b.Pools) == 0 {
				rows = append(rows, append(row, "-", "-", "-", "-"))
			}
		}
		return printRows(a.out, rows)
	})
}

func (a *app) cloudVolumeList() *cobra.Command {
	var query, project string
	cmd := a.cloudVerb("list CLOUD", "List the volumes of a cloud on this node, with their vDisks", func(ctx context.Context, api *client.Client, args []string) error {
		items, err := client.All(func(cursor *string) ([]client.CloudVolume, *string, error) {
			l, err := client.Get[client.CloudVolumeList](api.ListCloudVolumes(ctx, args[0], &client.ListCloudVolumesParams{Limit: new(pageSize), Cursor: cursor, Q: given(query), Project: given(project)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"PROJECT", "NAME", "ID", "STATUS", "TYPE", "SIZE", "VPOOL", "VDISK", "STORED", "ATTACHED"}, func(v client.CloudVolume) []string {
			disk := v.VDiskName
			if v.VDisk == "" {
				disk = "-"
			}
			return []string{
				projectText(v.ProjectName, v.Project), dash(v.Name), v.ID, v.Status, dash(v.Type), formatSize(v.Size), v.VPool, disk, formatSize(v.Stored),
				dash(strings.Join(v.Attached, " ")),
			}
		})
	})
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name or id contains this")
	cmd.Flags().StringVar(&project, "project", "", "only those of the project with this name or id")
	return cmd
}

func (a *app) cloudOrphans() *cobra.Command {
	cmd := &cobra.Command{Use: "orphans", Short: "List vDisks and snapshots of Cinder without a volume's, and the other way round", Args: names()}
	cmd.Long = "List vDisks of Cinder without a volume in any registered cloud, volumes without a vDisk, and snapshots that only one of\n" +
		"both has, also those that Cinder was told to forget. A cloud that does not answer ends it with an error. Register\n" +
		"every cloud that uses this node first: vDisks of others are in the list."
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Orphan, *string, error) {
			l, err := client.Get[client.OrphanList](api.ListOrphans(ctx, &client.ListOrphansParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"KIND", "NAME", "ID", "CLOUD", "VPOOL", "PROJECT", "SIZE", "STORED", "REASON"}, func(o client.Orphan) []string {
			return []string{o.Kind, dash(o.Name), o.ID, dash(o.Cloud), o.VPool, dash(o.Project), formatSize(o.Size), formatSize(o.Stored), o.Reason}
		})
	})
	return cmd
}

func (a *app) cloudUsage() *cobra.Command {
	return a.cloudVerb("usage CLOUD", "Show what each project of a cloud has on this node", func(ctx context.Context, api *client.Client, args []string) error {
		l, err := client.Get[client.CloudUsageList](api.GetCloudUsage(ctx, args[0]))
		if err != nil {
			return err
		}
		return printList(a, l.Items, []string{"PROJECT", "ID", "VOLUMES", "SIZE", "STORED"}, func(u client.CloudUsage) []string {
			return []string{dash(u.Name), u.Project, strconv.Itoa(u.Volumes), formatSize(u.Size), formatSize(u.Stored)}
		})
	})
}

// projectText is a project's name, or its id where the name is not known.
func projectText(name, id string) string {
	if name == "" {
		return dash(id)
	}
	return name
}

func (a *app) printCloudResult(r client.CloudResult) error {
	return printOne(a, r, append(cloudRows(r.Cloud), stepRows(r.Steps)...))
}

func cloudRows(c client.Cloud) [][]string {
	o := c.Options
	rows := [][]string{{"name", c.Name}, {"id", c.ID}}
	user := "user"
	if o.ApplicationCredential {
		user = "application credential"
	}
	for _, r := range [][2]string{
		{"auth url", o.URL}, {user, o.User}, {"domain", o.Domain}, {"project", o.Project}, {"project domain", o.ProjectDomain},
		{"region", o.Region}, {"interface", o.Interface}, {"request timeout", formatMillis(o.TimeoutMs)}, {"version", c.Version},
	} {
		if r[1] != "" {
			rows = append(rows, []string{r[0], r[1]})
		}
	}
	if o.Ca != "" {
		rows = append(rows, []string{"ca", fmt.Sprintf("%d certificates", strings.Count(o.Ca, "BEGIN CERTIFICATE"))})
	}
	for _, t := range c.Types {
		rows = append(rows, []string{"type", t.Name + ": " + typeText(t)})
	}
	rows = append(rows, []string{"backends", dash(strings.Join(c.Backends, " "))}, []string{"tested", formatTime(&c.TestedAt)}, []string{"applied", formatTime(c.AppliedAt)})
	for _, w := range c.Warnings {
		rows = append(rows, []string{"warning", w})
	}
	return rows
}

// typeText prints what a volume type is.
func typeText(t client.VolumeType) string {
	parts := []string{"vpool " + t.VPool}
	if t.Backend != "" {
		parts = append(parts, "backend "+t.Backend)
	}
	if t.Multiattach {
		parts = append(parts, "multiattach")
	}
	l := t.Limits
	for _, n := range []struct {
		value int64
		text  func(int64) string
	}{
		{l.Iops, func(n int64) string { return strconv.FormatInt(n, 10) + " IOPS" }},
		{l.IopsPerGib, func(n int64) string { return strconv.FormatInt(n, 10) + " IOPS per GiB" }},
		{l.BytesPerSecond, func(n int64) string { return formatSize(n) + "/s" }},
		{l.BytesPerSecondPerGib, func(n int64) string { return formatSize(n) + "/s per GiB" }},
		{l.BurstMs, func(n int64) string { return "burst " + formatMillis(n) }},
	} {
		if n.value > 0 {
			parts = append(parts, n.text(n.value))
		}
	}
	return strings.Join(parts, ", ")
}
