package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// domain returns the verbs of domains of failure.
func (a *app) domain() *cobra.Command {
	return group("domain", "What fails together, such as racks, and what the loss of each would mean", a.domainList(), a.domainShow())
}

func (a *app) domainList() *cobra.Command {
	var query string
	cmd := &cobra.Command{Use: "list", Short: "List the domains", Args: names()}
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name contains this")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Domain, *string, error) {
			l, err := client.Get[client.DomainList](api.ListDomains(ctx, &client.ListDomainsParams{Limit: new(pageSize), Cursor: cursor, Q: given(query)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "NODES", "DEVICES", "USED", "VDISKS", "COPIES", "TAKEN-OVER", "WAIT", "GONE", "OBJECTS-LOST", "STATE"}, func(d client.Domain) []string {
			return []string{
				dash(d.Name), domainNodes(d), strconv.Itoa(d.Devices), formatSize(d.Used), strconv.Itoa(d.Vdisks), strconv.Itoa(d.Copies),
				strconv.Itoa(d.TakenOver), strconv.Itoa(d.Waits), strconv.Itoa(d.Gone), lostObjects(d), string(d.State),
			}
		})
	})
	cmd.Long = "List what fails together: the domains that nodes have in their configuration, and those that were named for the ASDs of\n" +
		"other machines, with what would become of vDisks and objects at most. The domain - is of what nobody said where it is."
	return cmd
}

func domainNodes(d client.Domain) string {
	var all []string
	for _, n := range d.Nodes {
		all = append(all, n.Name)
	}
	return dash(strings.Join(append(all, d.Machines...), ","))
}

// lostObjects is how many objects could be lost at most.
func lostObjects(d client.Domain) string {
	if d.Lost == nil {
		return "-"
	}
	return strconv.FormatInt(*d.Lost, 10)
}

func (a *app) domainShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a domain, its vDisks, and what its loss would mean", Args: names("NAME"), ValidArgsFunction: a.completeDomains}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.Domain](api.GetDomain(ctx, args[0]))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, d)
		}
		vdisks, err := client.All(func(cursor *string) ([]client.DomainVDisk, *string, error) {
			l, err := client.Get[client.DomainVDiskList](api.ListDomainVDisks(ctx, args[0], &client.ListDomainVDisksParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		if err := printRows(a.out, [][]string{
			{"name", dash(d.Name)}, {"nodes", domainNodes(d)}, {"devices", fmt.Sprintf("%d, %d do not work", d.Devices, d.Failed)}, {"used", formatSize(d.Used) + " of " + formatSize(d.Total)},
			{"vdisks", strconv.Itoa(d.Vdisks)}, {"copies", strconv.Itoa(d.Copies)}, {"surveyed", formatTime(d.SurveyedAt)}, {"observed", formatTime(&d.ObservedAt)},
		}); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "\nIts loss (%s):\n  %s\n", d.State, strings.Join(d.Loss, "\n  "))
		if len(vdisks) == 0 {
			return nil
		}
		fmt.Fprintln(a.out)
		return printList(a, vdisks, []string{"VDISK", "VPOOL", "NODE", "DOMAIN", "COPY", "COPY-DOMAIN", "WHEN-LOST"}, func(v client.DomainVDisk) []string {
			where := func(s *string) string {
				if s == nil {
					return "-"
				}
				return dash(*s)
			}
			return []string{v.Name, v.VPool, v.Node, dash(v.Domain), where(v.Copy), where(v.CopyDomain), string(v.Fate)}
		})
	})
	return cmd
}

func (a *app) completeDomains(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
		l, err := client.Get[client.DomainList](api.ListDomains(ctx, &client.ListDomainsParams{Limit: new(completeMost), Q: given(prefix)}))
		var all []string
		for _, d := range l.Items {
			all = append(all, dash(d.Name))
		}
		return all, err
	})
}
