package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// node returns the verbs of nodes.
func (a *app) node() *cobra.Command {
	return group("node", "Nodes of the cluster", a.nodeList(), a.nodeShow(), a.nodeMachine(), a.nodeCheck(), a.nodeLayout(), a.nodePerformance(), a.nodeDrain(), a.nodeRemove())
}

func (a *app) nodeList() *cobra.Command {
	var query string
	cmd := &cobra.Command{Use: "list", Short: "List the nodes", Args: names()}
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name contains this")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Member, *string, error) {
			l, err := client.Get[client.MemberList](api.ListNodes(ctx, &client.ListNodesParams{Limit: new(pageSize), Cursor: cursor, Q: given(query)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "STATE", "LIVENESS", "FOR", "VERSION", "VDISKS", "CPU", "URL", "STARTED"}, func(m client.Member) []string {
			return []string{m.Name, string(m.State), string(m.Liveness), livenessAge(m), dash(m.Version), strconv.Itoa(m.Vdisks), memberCPU(m), dash(m.URL), formatTime(m.StartedAt)}
		})
	})
	return cmd
}

func (a *app) nodeShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a node", Args: names("NAME"), ValidArgsFunction: a.completeNodes}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		m, err := client.Get[client.Member](api.GetNode(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printNode(m)
	})
	return cmd
}

func (a *app) printNode(m client.Member) error {
	return printOne(a, m, [][]string{
		{"name", m.Name}, {"id", m.ID}, {"state", string(m.State)}, {"liveness", string(m.Liveness) + " for " + livenessAge(m)}, {"draining", strconv.FormatBool(m.Draining)},
		{"version", m.Version}, {"url", m.URL}, {"portals", strings.Join(m.Portals, " ")}, {"dtl", dash(m.Dtl)}, {"domain", dash(m.Domain)},
		{"vdisks", strconv.Itoa(m.Vdisks)}, {"load", memberLoad(m)},
		{"joined", formatTime(&m.JoinedAt)}, {"started", formatTime(m.StartedAt)}, {"observed", formatTime(&m.ObservedAt)},
	})
}

func (a *app) nodeMachine() *cobra.Command {
	cmd := &cobra.Command{
		Use: "machine NAME", Short: "Show the machine of a node and the places where it keeps things", Args: names("NAME"), ValidArgsFunction: a.completeNodes,
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		m, err := client.Get[client.Machine](api.GetNodeMachine(ctx, args[0]))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, m)
		}
		rows := [][]string{
			{"node", m.Node.Name}, {"hostname", m.Hostname}, {"system", dash(m.System)}, {"kernel", dash(m.Kernel)}, {"cpus", strconv.Itoa(m.Cpus)}, {"memory", formatSize(m.Memory)},
			{"version", m.Version}, {"go", m.Go}, {"health", string(m.Health.State)},
		}
		for _, l := range m.Listeners {
			rows = append(rows, []string{string(l.Service), strings.Join(l.Addresses, " ")})
		}
		if err := printRows(a.out, append(rows, []string{"observed", formatTime(&m.ObservedAt)})); err != nil {
			return err
		}
		fmt.Fprintln(a.out)
		return printList(a, m.Places, []string{"PLACE", "ROLES", "USED", "LIMIT", "FREE", "SIZE", "DEVICE", "PROBLEM"}, placeRow)
	})
	return cmd
}

func placeRow(p client.MachinePlace) []string {
	size := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return formatSize(*n)
	}
	var roles []string
	for _, r := range p.Roles {
		roles = append(roles, string(r))
	}
	problem := "-"
	if p.Problem != nil {
		problem = *p.Problem
	} else if p.ReadOnly {
		problem = "mounted for reading only"
	}
	return []string{p.Path, strings.Join(roles, ","), size(p.Used), size(p.Limit), size(p.Free), size(p.Total), dash(p.Device), problem}
}

func (a *app) nodeDrain() *cobra.Command {
	var wait, cancel bool
	cmd := &cobra.Command{Use: "drain NAME", Short: "Have a node hand over all its vDisks", Args: names("NAME"), ValidArgsFunction: a.completeNodes}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		get := func() (client.Member, error) { return client.Get[client.Member](api.GetNode(ctx, args[0])) }
		if cancel {
			if err := client.Done(api.EndNodeDrain(ctx, args[0])); err != nil {
				return err
			}
			m, err := get()
			if err != nil {
				return err
			}
			return a.printNode(m)
		}
		m, err := client.Get[client.Member](api.DrainNode(ctx, args[0]))
		if wait && err == nil {
			m, err = follow(ctx, m, func(m client.Member) bool { return m.Vdisks > 0 && m.Draining }, get)
		}
		if err != nil {
			return err
		}
		return a.printNode(m)
	})
	cmd.Long = "Have a node hand over all its vDisks to the others, and take no more, so that it can be stopped. It is refused when\n" +
		"they have nowhere to go."
	cmd.Example = "  ovgate node drain n1 --wait\n  ovgate node drain n1 --cancel"
	cmd.Flags().BoolVar(&wait, "wait", false, "return when it has none left")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "let it have vDisks again")
	cmd.MarkFlagsMutuallyExclusive("wait", "cancel")
	return cmd
}

func (a *app) nodeRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Take a dead node out of the cluster; it does not start again", Args: names("NAME"), ValidArgsFunction: a.completeNodes,
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Take node "+args[0]+" out of the cluster, for good?"); err != nil {
			return err
		}
		return client.Done(api.RemoveNode(ctx, args[0]))
	})
	return cmd
}

// livenessAge is for how long a node is alive, dead, ..., in whole seconds.
func livenessAge(m client.Member) string {
	if m.LivenessMs == nil {
		return "-"
	}
	return (time.Duration(*m.LivenessMs) * time.Millisecond).Truncate(time.Second).String()
}

func memberCPU(m client.Member) string {
	if m.Load == nil {
		return "-"
	}
	return strconv.Itoa(m.Load.CPU) + "%"
}

func memberLoad(m client.Member) string {
	if m.Load == nil {
		return "-"
	}
	return fmt.Sprintf("cpu %d%%, memory %d%%, journal %d%%, %d vdisks open", m.Load.CPU, m.Load.Memory, m.Load.Journal, m.Load.Vdisks)
}

func (a *app) completeNodes(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.MemberList](api.ListNodes(ctx, &client.ListNodesParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, m := range l.Items {
			all = append(all, m.Name)
		}
		return all, err
	})
}
