package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// targetGroup returns the verbs of the groups of a target.
func (a *app) targetGroup() *cobra.Command {
	return group("group", "Groups of initiators of a target: who, how they prove it, what they see",
		a.groupCreate(), a.groupList(), a.groupShow(), a.groupSet(), a.groupMap(), a.groupDelete())
}

// groupCommand makes a verb about a group of a target; f gets the target's iSCSI
// name in place of the first argument.
func (a *app) groupCommand(use, short string, args cobra.PositionalArgs, f call) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args, ValidArgsFunction: a.completeVDisks,
		RunE: a.online(func(ctx context.Context, api *client.Client, args []string) error {
			iqn, err := targetName(ctx, api, args[0])
			if err != nil {
				return err
			}
			return f(ctx, api, append([]string{iqn}, args[1:]...))
		}),
	}
}

// groupFlags are the flags of create and set.
type groupFlags struct {
	cmd                       *cobra.Command
	initiators                []string
	any, readOnly             bool
	noCHAP, mutual            bool
	user, mutualUser          string
	secretStdin, mutualSecret bool
}

func (g *groupFlags) add(cmd *cobra.Command) {
	g.cmd = cmd
	f := cmd.Flags()
	f.StringArrayVar(&g.initiators, "initiator", nil, "iSCSI name of a member; may be repeated")
	f.BoolVar(&g.any, "any", false, "admit any initiator that no group names and that knows the CHAP secret")
	f.BoolVar(&g.readOnly, "read-only", false, "members do not write")
	f.BoolVar(&g.noCHAP, "no-chap", false, "demand no CHAP: whoever says one of the names gets in")
	f.StringVar(&g.user, "chap-user", "", "CHAP name of the initiators (default made from target and group)")
	f.BoolVar(&g.secretStdin, "chap-secret-stdin", false, "read the initiators' CHAP secret from standard input instead of drawing one")
	f.BoolVar(&g.mutual, "mutual", false, "the target proves itself too, with a secret of its own")
	f.StringVar(&g.mutualUser, "mutual-user", "", "CHAP name of the target")
	f.BoolVar(&g.mutualSecret, "mutual-secret-stdin", false, "read the target's CHAP secret from standard input, after that of the initiators")
}

// patch is what the flags that were given change.
func (g *groupFlags) patch(ctx context.Context, a *app) (client.GroupPatch, error) {
	var p client.GroupPatch
	changed := g.cmd.Flags().Changed
	for name, to := range map[string]**bool{"any": &p.Any, "read-only": &p.ReadOnly, "mutual": &p.Mutual} {
		if changed(name) {
			v, err := g.cmd.Flags().GetBool(name)
			if err != nil {
				return p, err
			}
			*to = &v
		}
	}
	if changed("no-chap") {
		p.Chap = new(!g.noCHAP)
	}
	if changed("initiator") {
		p.Initiators = &g.initiators
	}
	p.ChapUser, p.MutualUser = given(g.user), given(g.mutualUser)
	for _, s := range []struct {
		wanted bool
		to     **string
		what   string
	}{{g.secretStdin, &p.ChapSecret, "CHAP secret"}, {g.mutualSecret, &p.MutualSecret, "target's CHAP secret"}} {
		if s.wanted {
			secret, err := a.secretLine(ctx, s.what)
			if err != nil {
				return p, err
			}
			*s.to = &secret
		}
	}
	return p, nil
}

func (a *app) groupCreate() *cobra.Command {
	var g groupFlags
	cmd := a.groupCommand("create TARGET NAME", "Let a group of initiators sign in to a target", names("TARGET", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			p, err := g.patch(ctx, a)
			if err != nil {
				return err
			}
			r, err := client.Get[client.GroupResult](api.CreateTargetGroup(ctx, args[0], &client.CreateTargetGroupParams{IdempotencyKey: new(rand.Text())}, client.GroupInput{
				Name: args[1], Any: p.Any, Initiators: p.Initiators, ReadOnly: p.ReadOnly, Chap: p.Chap, ChapUser: p.ChapUser, ChapSecret: p.ChapSecret,
				Mutual: p.Mutual, MutualUser: p.MutualUser, MutualSecret: p.MutualSecret,
			}))
			if err != nil {
				return err
			}
			return a.printGroupResult(r)
		})
	cmd.Long = "Let a group of initiators sign in to a target. A CHAP secret is drawn unless one is given; it is printed\n" +
		"here and not shown again."
	cmd.Example = "  ovgate target group create db1 backup --initiator iqn.2026-01.com.example:backup --read-only"
	g.add(cmd)
	return cmd
}

func (a *app) groupSet() *cobra.Command {
	var g groupFlags
	var rotate bool
	var add, remove []string
	cmd := a.groupCommand("set TARGET NAME", "Change a group; what is not given stays", names("TARGET", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			p, err := g.patch(ctx, a)
			if err != nil {
				return err
			}
			p.RotateSecret = &rotate
			if len(add) > 0 {
				p.AddInitiators = &add
			}
			if len(remove) > 0 {
				p.RemoveInitiators = &remove
			}
			return a.patchGroup(ctx, api, args, p)
		})
	cmd.Long = "Change a group. Sessions of initiators that it does not admit any more are dropped; new secrets apply from the\n" +
		"next sign-in. A secret that is drawn is printed here and not shown again."
	g.add(cmd)
	f := cmd.Flags()
	f.Lookup("initiator").Usage = "iSCSI name of a member, in place of those it has; may be repeated"
	f.StringArrayVar(&add, "add-initiator", nil, "iSCSI name of a further member; may be repeated")
	f.StringArrayVar(&remove, "remove-initiator", nil, "iSCSI name to take out; may be repeated")
	f.BoolVar(&rotate, "rotate-secret", false, "draw new secrets")
	return cmd
}

// patchGroup changes a group and prints it.
func (a *app) patchGroup(ctx context.Context, api *client.Client, args []string, p client.GroupPatch) error {
	r, err := client.Get[client.GroupResult](api.UpdateTargetGroup(ctx, args[0], args[1], p))
	if err != nil {
		return err
	}
	return a.printGroupResult(r)
}

func (a *app) groupMap() *cobra.Command {
	var all bool
	cmd := a.groupCommand("map TARGET NAME LUN=NUMBER[:ro]...", "Choose the LUNs that members see, and under which numbers", nil,
		func(ctx context.Context, api *client.Client, args []string) error {
			if all {
				return a.patchGroup(ctx, api, args, client.GroupPatch{Masked: new(false)})
			}
			luns := []client.LUNMap{}
			for _, arg := range args[2:] {
				m, err := parseLUNMap(arg)
				if err != nil {
					return err
				}
				luns = append(luns, m)
			}
			return a.patchGroup(ctx, api, args, client.GroupPatch{LUNs: &luns})
		})
	cmd.Long = "Choose the LUNs of the target that members see, and under which numbers: they see those and no other.\n" +
		"LUN alone stands for LUN=LUN; :ro keeps members from writing."
	cmd.Example = "  ovgate target group map cluster esx 0=0 5=1:ro\n  ovgate target group map cluster esx --all"
	cmd.Flags().BoolVar(&all, "all", false, "every LUN under its own number")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < 2:
			return usagef("target group map: TARGET and NAME are needed")
		case all == (len(args) > 2):
			return usagef("target group map: give LUN=NUMBER, or --all")
		}
		return nil
	}
	return cmd
}

// parseLUNMap reads LUN, LUN=NUMBER, and either with :ro behind.
func parseLUNMap(s string) (client.LUNMap, error) {
	text, ro := strings.CutSuffix(s, ":ro")
	lun, number, both := strings.Cut(text, "=")
	if !both {
		number = lun
	}
	l, lerr := strconv.ParseUint(lun, 10, 16)
	n, nerr := strconv.ParseUint(number, 10, 16)
	if lerr != nil || nerr != nil {
		return client.LUNMap{}, usagef("%q is not LUN=NUMBER, such as 0=1 or 5=2:ro", s)
	}
	return client.LUNMap{LUN: int(l), Number: int(n), ReadOnly: ro}, nil
}

func (a *app) groupList() *cobra.Command {
	return a.groupCommand("list TARGET", "List the groups of a target", names("TARGET"),
		func(ctx context.Context, api *client.Client, args []string) error {
			t, err := client.Get[client.Target](api.GetTarget(ctx, args[0]))
			if err != nil {
				return err
			}
			header := []string{"GROUP", "INITIATORS", "CHAP", "MUTUAL", "ACCESS", "LUNS", "SESSIONS"}
			return printList(a, t.Groups, header, func(g client.TargetGroup) []string {
				return []string{g.Name, membersText(g), dash(g.ChapUser), dash(g.MutualUser), accessText(g), lunMapsText(g), strconv.Itoa(g.Sessions)}
			})
		})
}

func (a *app) groupShow() *cobra.Command {
	return a.groupCommand("show TARGET NAME", "Show a group of a target", names("TARGET", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			t, err := client.Get[client.Target](api.GetTarget(ctx, args[0]))
			if err != nil {
				return err
			}
			for _, g := range t.Groups {
				if g.Name == args[1] {
					return printOne(a, g, groupRows(t.IQN, g))
				}
			}
			return &client.APIError{Status: 404, Code: "not_found", Object: "target " + t.IQN, Message: "it has no group " + args[1], Hint: "ovgate target group list " + t.IQN + " shows the groups"}
		})
}

func (a *app) groupDelete() *cobra.Command {
	var force bool
	cmd := a.groupCommand("delete TARGET NAME", "Keep the members of a group out", names("TARGET", "NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if err := a.confirm(ctx, "Delete group "+args[1]+" of "+args[0]+"?"); err != nil {
				return err
			}
			return client.Done(api.DeleteTargetGroup(ctx, args[0], args[1], &client.DeleteTargetGroupParams{Force: &force}))
		})
	cmd.Flags().BoolVar(&force, "force", false, "drop the sessions of initiators that are signed in by it")
	return cmd
}

// printGroupResult prints a group after a change, with the secrets it drew.
func (a *app) printGroupResult(r client.GroupResult) error {
	rows := groupRows(r.Target, r.Group)
	for _, s := range [][2]string{{"chap secret", r.ChapSecret}, {"mutual secret", r.MutualSecret}} {
		if s[1] != "" {
			rows = append(rows, []string{s[0], s[1] + " (not shown again)"})
		}
	}
	for _, n := range r.Notes {
		rows = append(rows, []string{"note", n})
	}
	return printOne(a, r, rows)
}

func groupRows(iqn string, g client.TargetGroup) [][]string {
	rows := [][]string{{"target", iqn}, {"group", g.Name}, {"any initiator", yesNo(g.Any)}}
	for _, n := range g.Initiators {
		rows = append(rows, []string{"initiator", n})
	}
	return append(rows, []string{"chap user", dash(g.ChapUser)}, []string{"mutual user", dash(g.MutualUser)},
		[]string{"access", accessText(g)}, []string{"luns", lunMapsText(g)}, []string{"sessions", strconv.Itoa(g.Sessions)})
}

// groupText is a group in one line.
func groupText(g client.TargetGroup) string {
	chap := "no CHAP"
	if g.ChapUser != "" {
		chap = "CHAP " + g.ChapUser
	}
	if g.MutualUser != "" {
		chap += " and " + g.MutualUser
	}
	return fmt.Sprintf("%s initiators, %s, %s, LUNs %s, %d sessions", membersText(g), chap, accessText(g), lunMapsText(g), g.Sessions)
}

func membersText(g client.TargetGroup) string {
	if g.Any {
		return "any"
	}
	return strconv.Itoa(len(g.Initiators))
}

func accessText(g client.TargetGroup) string {
	if g.ReadOnly {
		return "read-only"
	}
	return "read-write"
}

// lunMapsText prints what members see, as group map takes it.
func lunMapsText(g client.TargetGroup) string {
	if !g.Masked {
		return "all"
	}
	var all []string
	for _, m := range g.LUNs {
		s := strconv.Itoa(m.LUN) + "=" + strconv.Itoa(m.Number)
		if m.ReadOnly {
			s += ":ro"
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, " ")
}
