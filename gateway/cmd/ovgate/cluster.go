package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/node"
	"github.com/openvstorage/ovgate/internal/client"
)

// cluster returns the verbs of the cluster.
func (a *app) cluster() *cobra.Command {
	return group("cluster", "The cluster that nodes are in", a.clusterInit(), a.clusterJoin(), a.clusterLeave(), a.clusterRebalance(), a.clusterStatus(),
		group("token", "Tokens that let nodes join", a.joinTokenCreate(), a.joinTokenList(), a.joinTokenRevoke()))
}

func (a *app) clusterInit() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "init --name NAME",
		Short: "Make the node the first of a cluster",
		Long: "Make the node the first of a cluster. Its registry has to be in etcd: registry: {etcd: [https://HOST:2379]} in the\n" +
			"configuration moves it there. Repeating it changes nothing.",
		Args: names(),
	}
	cmd.Flags().StringVar(&name, "name", "", "what the cluster is called, for good")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		if name == "" {
			return usagef("--name is missing: what is the cluster called?")
		}
		c, err := client.Get[client.ClusterStatus](api.InitCluster(ctx, client.ClusterInput{Name: name}))
		if err != nil {
			return err
		}
		return a.printCluster(c)
	})
	return cmd
}

func (a *app) clusterJoin() *cobra.Command {
	o := node.JoinOptions{}
	cmd := &cobra.Command{
		Use:   "join --data DIR --config FILE",
		Short: "Make an empty data directory that of a new node of a cluster",
		Long: "Make an empty data directory that of a new node of a cluster; ovgate serve with the same --data and --config runs it\n" +
			"then. The token of ovgate cluster token create is read from --token-file, mode 0600, or from standard input. It is\n" +
			"sent only to a node of the cluster that made it. The registry's place comes from there; user, password_file and\n" +
			"certificates for it are in the configuration. A join that was cut off is repeated with the same token.",
		Example: "  ovgate cluster join --data /var/lib/ovgate --config /etc/ovgate/ovgate.yaml --token-file token",
		Args:    names(),
	}
	cmd.Flags().StringVar(&o.Config, "config", "", "configuration file that the node is to be served with, YAML")
	cmd.Flags().StringVar(&o.Cluster, "name", "", "name of the cluster that is meant; another one is refused")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		if a.url != "" {
			return usagef("join makes a data directory on this machine; --url has no meaning there")
		}
		var err error
		if a.tokenFile != "" {
			o.Token, err = client.ReadToken(a.env, a.tokenFile)
		} else {
			o.Token, err = a.password(cmd.Context(), "join token", a.terminal == nil, false)
		}
		if err != nil {
			return err
		}
		o.Data, o.Stderr, o.Version = a.serveData(), a.err, build().Version
		j, err := node.Join(cmd.Context(), o)
		if err != nil {
			return err
		}
		return printOne(a, j, [][]string{{"cluster", j.Cluster}, {"node", j.Node}, {"id", j.NodeID}})
	}
	return cmd
}

func (a *app) clusterLeave() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take the node out of its cluster, and stop it",
		Long: "Take the node out of its cluster, and stop it. It owns no vDisks and no devices of the object store any more. Its data\n" +
			"directory is of no use then: to join again, join with an empty one.",
		Args: names(),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		if err := a.confirm(ctx, "Take this node out of its cluster, for good?"); err != nil {
			return err
		}
		return client.Done(api.LeaveCluster(ctx))
	})
	return cmd
}

func (a *app) clusterRebalance() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Spread the vDisks over the nodes",
		Long: "Hand over as few vDisks as it takes until no two nodes that are up and take vDisks differ by more than one, as after a\n" +
			"node came back or joined. Initiators go on. The hand-overs run in the background: ovgate vdisk list shows where\n" +
			"vDisks are.",
		Example: "  ovgate cluster rebalance --dry-run",
		Args:    names(),
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only tell what would be done")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		r, err := client.Get[client.Rebalance](api.Rebalance(ctx, client.RebalanceJSONRequestBody{DryRun: &dry}))
		if err != nil {
			return err
		}
		return printList(a, r.Items, []string{"VDISK", "FROM", "TO"}, func(h client.Handoff) []string { return []string{h.VDisk, h.From, h.To} })
	})
	return cmd
}

func (a *app) clusterStatus() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show the cluster", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		c, err := client.Get[client.ClusterStatus](api.GetCluster(ctx))
		if err != nil {
			return err
		}
		return a.printCluster(c)
	})
	return cmd
}

// printCluster prints the cluster.
func (a *app) printCluster(c client.ClusterStatus) error {
	text := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	n := c.Nodes
	nodes := strconv.Itoa(n.Total)
	for _, k := range []struct {
		name  string
		count int
	}{{"alive", n.Alive}, {"suspect", n.Suspect}, {"dead", n.Dead}, {"left", n.Left}, {"unknown", n.Unknown}} {
		if k.count > 0 {
			nodes += ", " + strconv.Itoa(k.count) + " " + k.name
		}
	}
	rows := [][]string{{"name", text(c.Name)}, {"id", c.ID}, {"registry", string(c.Registry)}, {"nodes", nodes}}
	if c.Name != nil {
		rows = append(rows, []string{"gossip", text(c.Gossip)}, []string{"created", formatTime(c.CreatedAt)},
			[]string{"certificate", "until " + formatTime(c.CertificateEndsAt)}, []string{"authority", "until " + formatTime(c.AuthorityEndsAt)})
	}
	return printOne(a, c, append(append(rows, registryRows(c)...), []string{"observed", formatTime(&c.ObservedAt)}))
}

// registryRows are the members of the registry's etcd, one in a line.
func registryRows(c client.ClusterStatus) [][]string {
	if c.RegistryMembers == nil {
		return nil
	}
	var rows [][]string
	count := 0
	for _, m := range *c.RegistryMembers {
		line := m.URL + " " + string(m.State)
		if m.Node != nil {
			line = *m.Node + ", " + line
		}
		if m.Leads {
			line += ", leads"
		}
		if m.Error != nil {
			line += ": " + *m.Error
		}
		if m.State != client.RegistryMemberStateLearner {
			count++
		}
		rows = append(rows, []string{"registry member", line})
	}
	if c.Registry == client.ClusterStatusRegistryNodes && c.Nodes.Total > 1 && count < 3 {
		rows = append(rows, []string{"registry", fmt.Sprintf("%d of its members count: with three it outlives one", count)})
	}
	return rows
}

func (a *app) joinTokenCreate() *cobra.Command {
	life := time.Hour
	var urls []string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token that lets one node join, and print it, once",
		Long: "Make a token that lets one node join, and print it, once. It is a secret: hand it over in a file or a pipe. The node\n" +
			"that joins asks the addresses in it, those of nodes that are up; --url names others.",
		Example: "  ovgate cluster token create | ssh node2 ovgate cluster join --data /var/lib/ovgate --config /etc/ovgate/ovgate.yaml",
		Args:    names(),
	}
	cmd.Flags().DurationVar(&life, "life", life, "how long it holds, up to a week")
	cmd.Flags().StringArrayVar(&urls, "node-url", nil, "https://HOST:PORT of a node to ask; may be repeated (default nodes that are up)")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		in := client.JoinTokenInput{LifeMs: new(life.Milliseconds())}
		if len(urls) > 0 {
			in.Urls = &urls
		}
		t, err := client.Get[client.NewJoinToken](api.CreateJoinToken(ctx, &client.CreateJoinTokenParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(t.Urls, elsewhere) {
			a.hint("a node on another machine does not reach " + t.Urls[0] + ": give the API another address with api in the configuration, or name one with --node-url")
		}
		if a.output == outputJSON {
			return printJSON(a.out, t)
		}
		_, err = fmt.Fprintln(a.out, t.Token)
		return err
	})
	return cmd
}

// elsewhere tells whether a URL may be reached from other machines.
func elsewhere(s string) bool {
	u, err := url.Parse(s)
	ip := net.ParseIP(u.Hostname())
	return err == nil && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

func (a *app) joinTokenList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List tokens, without their secrets", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.JoinToken, *string, error) {
			l, err := client.Get[client.JoinTokenList](api.ListJoinTokens(ctx, &client.ListJoinTokensParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"ID", "STATE", "NODE", "CREATED", "EXPIRES"}, func(t client.JoinToken) []string {
			node := ""
			if t.Node != nil {
				node = *t.Node
			}
			return []string{t.ID, string(t.State), dash(node), formatTime(&t.Created), formatTime(&t.Expires)}
		})
	})
	return cmd
}

func (a *app) joinTokenRevoke() *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID", Short: "Make a token useless; a node that joined with it stays", Args: names("ID")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.RevokeJoinToken(ctx, args[0]))
	})
	return cmd
}
