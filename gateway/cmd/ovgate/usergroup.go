package main

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// userGroup returns the verbs of groups of users.
func (a *app) userGroup() *cobra.Command {
	return group("group", "Groups of users, and what their members may",
		a.userGroupList(), a.userGroupCreate(), a.userGroupShow(), a.userGroupEdit(), a.userGroupDelete(), a.userGroupAdd(), a.userGroupRemove())
}

func (a *app) userGroupList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List groups of users", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.UserGroup, *string, error) {
			l, err := client.Get[client.UserGroupList](api.ListGroups(ctx, &client.ListGroupsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "MAY", "MEMBERS", "DESCRIPTION"}, func(g client.UserGroup) []string {
			return []string{g.Name, rightsText(g.Role, g.Grants), strings.Join(g.Members, ", "), g.Description}
		})
	})
	return cmd
}

// printGroup prints a group.
func (a *app) printGroup(g client.UserGroup) error {
	return printOne(a, g, [][]string{
		{"name", g.Name}, {"id", g.ID}, {"description", g.Description}, {"role", string(g.Role)}, {"grants", strings.Join(grantWords(g.Grants), ", ")},
		{"members", strings.Join(g.Members, ", ")}, {"created", formatTime(&g.Created)},
	})
}

func (a *app) userGroupCreate() *cobra.Command {
	var roleName, description string
	var grants grantFlags
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a group of users",
		Example: "  ovgate group create builders --grant write:vpool:fast",
		Args:    names("NAME"),
	}
	cmd.Flags().StringVar(&roleName, "role", string(client.RoleOrNoneNone), "of its members over everything: none, read, write or manage")
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	grants.add(cmd, false)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		r, err := roleOrNone(roleName)
		if err != nil {
			return err
		}
		list, err := grants.given()
		if err != nil {
			return err
		}
		g, err := client.Get[client.UserGroup](api.CreateGroup(ctx, &client.CreateGroupParams{IdempotencyKey: new(rand.Text())},
			client.UserGroupInput{Name: args[0], Description: given(description), Role: &r, Grants: list}))
		if err != nil {
			return err
		}
		return a.printGroup(g)
	})
	return cmd
}

func (a *app) userGroupShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a group of users", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		g, err := client.Get[client.UserGroup](api.GetGroup(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printGroup(g)
	})
	return cmd
}

func (a *app) userGroupEdit() *cobra.Command {
	var roleName, description, name string
	var grants grantFlags
	cmd := &cobra.Command{Use: "edit NAME", Short: "Change a group of users; its members' rights follow at once", Args: names("NAME")}
	cmd.Flags().StringVar(&name, "name", "", "another name")
	cmd.Flags().StringVar(&roleName, "role", "", "of its members over everything: none, read, write or manage")
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	grants.add(cmd, true)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) (err error) {
		patch := client.UserGroupPatch{Name: given(name)}
		if cmd.Flags().Changed("description") {
			patch.Description = &description
		}
		patch.Role, patch.Grants, err = grants.change(roleName, func() ([]client.Grant, error) {
			now, err := client.Get[client.UserGroup](api.GetGroup(ctx, args[0]))
			return now.Grants, err
		})
		if err != nil {
			return err
		}
		if patch == (client.UserGroupPatch{}) {
			return usagef("group edit: say what is to change: --name, --role, --description, --grant or --revoke")
		}
		g, err := client.Get[client.UserGroup](api.UpdateGroup(ctx, args[0], patch))
		if err != nil {
			return err
		}
		return a.printGroup(g)
	})
	return cmd
}

func (a *app) userGroupDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "Delete a group of users; its members lose what it gave", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Delete group "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteGroup(ctx, args[0]))
	})
	return cmd
}

func (a *app) userGroupAdd() *cobra.Command {
	cmd := &cobra.Command{Use: "add NAME USER", Short: "Make a user a member of a group", Args: names("NAME", "USER")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		g, err := client.Get[client.UserGroup](api.AddGroupMember(ctx, args[0], args[1]))
		if err != nil {
			return err
		}
		return a.printGroup(g)
	})
	return cmd
}

func (a *app) userGroupRemove() *cobra.Command {
	cmd := &cobra.Command{Use: "remove NAME USER", Short: "Take a user out of a group", Args: names("NAME", "USER")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.RemoveGroupMember(ctx, args[0], args[1]))
	})
	return cmd
}
