package main

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// oauthClient returns the verbs of OAuth2 clients.
func (a *app) oauthClient() *cobra.Command {
	return group("client", "OAuth2 clients: programs that get tokens for an hour", a.clientList(), a.clientCreate(), a.clientSecret(), a.clientDelete())
}

func grantTypesText(types []client.OAuthGrantType) string {
	var words []string
	for _, t := range types {
		words = append(words, string(t))
	}
	return strings.Join(words, ", ")
}

func (a *app) clientList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List OAuth2 clients, without their secrets", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.OAuthClient, *string, error) {
			l, err := client.Get[client.OAuthClientList](api.ListClients(ctx, &client.ListClientsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"ID", "NAME", "USER", "GRANTS", "MAY", "EXPIRES", "LAST USED"}, func(c client.OAuthClient) []string {
			return []string{c.ID, c.Name, c.User, grantTypesText(c.GrantTypes), rightsText(c.Role, c.Grants), formatTime(c.Expires), formatTime(c.UsedAt)}
		})
	})
	return cmd
}

// printClient prints a client with its secret, once.
func (a *app) printClient(c client.NewOAuthClient) error {
	return printOne(a, c, [][]string{
		{"client_id", c.Client.ID}, {"client_secret", c.Secret + " (not shown again)"}, {"name", c.Client.Name}, {"user", c.Client.User},
		{"grants", grantTypesText(c.Client.GrantTypes)}, {"may", rightsText(c.Client.Role, c.Client.Grants)}, {"expires", formatTime(c.Client.Expires)},
	})
}

func (a *app) clientCreate() *cobra.Command {
	var limit limitFlags
	var user string
	var types []string
	var expires expiryFlag
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create an OAuth2 client and print its secret, once",
		Example: "  ovgate client create ci --role write --scope vpool:fast",
		Args:    names("NAME"),
	}
	limit.add(cmd)
	cmd.Flags().StringVar(&user, "user", "", "user it belongs to and acts as (default the one who asks)")
	cmd.Flags().StringSliceVar(&types, "grant-type", []string{string(client.OAuthGrantTypeClientCredentials)}, "client_credentials, password, or both")
	cmd.Flags().Var(&expires, "expires", "when it ends: after a time such as 720h, or at 2030-01-31 or 2030-01-31T12:00:00Z (default never)")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		r, grants, err := limit.limit()
		if err != nil {
			return err
		}
		in := client.OAuthClientInput{Name: args[0], User: given(user), Role: r, Grants: grants, Expires: expires.time(time.Now())}
		for _, t := range types {
			g := client.OAuthGrantType(t)
			if !g.Valid() {
				return usagef("grant type %q: use client_credentials or password", t)
			}
			in.GrantTypes = append(in.GrantTypes, g)
		}
		c, err := client.Get[client.NewOAuthClient](api.CreateClient(ctx, &client.CreateClientParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printClient(c)
	})
	return cmd
}

func (a *app) clientSecret() *cobra.Command {
	cmd := &cobra.Command{Use: "secret ID", Short: "Give an OAuth2 client another secret and print it, once; what it got ends", Args: names("ID")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Give client "+args[0]+" another secret?"); err != nil {
			return err
		}
		c, err := client.Get[client.NewOAuthClient](api.RenewClientSecret(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printClient(c)
	})
	return cmd
}

func (a *app) clientDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete ID", Short: "Delete an OAuth2 client with what it got", Args: names("ID")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Delete client "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteClient(ctx, args[0]))
	})
	return cmd
}
