package main

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// user returns the verbs of users and tokens.
func (a *app) user() *cobra.Command {
	return group("user", "Users, their roles and tokens",
		a.userCreate(), a.userList(), a.userShow(), a.userEdit(), a.userSetRole(), a.userSetPassword(), a.userMakeLocal(), a.userDelete(),
		group("token", "Bearer tokens for programs", a.tokenCreate(), a.tokenList(), a.tokenRevoke()))
}

// role checks the name of a role.
func role(s string) (client.Role, error) {
	r := client.Role(s)
	if !r.Valid() {
		return r, usagef("role %q: the roles are read, write and manage", s)
	}
	return r, nil
}

// roleOrNone checks the name of a role over everything, which may be none.
func roleOrNone(s string) (client.RoleOrNone, error) {
	r := client.RoleOrNone(s)
	if !r.Valid() {
		return r, usagef("role %q: the roles are none, read, write and manage", s)
	}
	return r, nil
}

func (a *app) userCreate() *cobra.Command {
	var stdin bool
	var roleName string
	var grants grantFlags
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Create a user; asks for the password",
		Args:  names("NAME"),
	}
	cmd.Flags().StringVar(&roleName, "role", string(client.RoleRead), "over everything: none, read, write or manage")
	grants.add(cmd, false)
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		r, err := roleOrNone(roleName)
		if err != nil {
			return err
		}
		list, err := grants.given()
		if err != nil {
			return err
		}
		password, err := a.password(ctx, "password of "+args[0], stdin, true)
		if err != nil {
			return err
		}
		u, err := client.Get[client.User](api.CreateUser(ctx, &client.CreateUserParams{IdempotencyKey: new(rand.Text())},
			client.UserInput{Name: args[0], Role: r, Password: password, Grants: list}))
		if err != nil {
			return err
		}
		return a.printUser(u)
	})
	return cmd
}

func (a *app) userList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List users", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.User, *string, error) {
			l, err := client.Get[client.UserList](api.ListUsers(ctx, &client.ListUsersParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "MAY", "SIGNS IN", "GROUPS", "CREATED"}, func(u client.User) []string {
			return []string{u.Name, rightsText(u.Effective.Role, u.Effective.Grants), signsIn(u), strings.Join(u.Groups, ", "), formatTime(&u.Created)}
		})
	})
	return cmd
}

func (a *app) userShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a user", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		u, err := client.Get[client.User](api.GetUser(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printUser(u)
	})
	return cmd
}

func (a *app) userSetRole() *cobra.Command {
	cmd := &cobra.Command{Use: "set-role NAME ROLE", Short: "Change a user's role over everything: none, read, write or manage", Args: names("NAME", "ROLE")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		r, err := roleOrNone(args[1])
		if err != nil {
			return err
		}
		return a.userPatch(ctx, api, args[0], client.UserPatch{Role: &r})
	})
	return cmd
}

func (a *app) userEdit() *cobra.Command {
	var roleName string
	var grants grantFlags
	cmd := &cobra.Command{
		Use:     "edit NAME",
		Short:   "Change what a user may, beside what its groups give",
		Example: "  ovgate user edit anna --role none --grant write:vpool:fast --revoke vpool:slow",
		Args:    names("NAME"),
	}
	cmd.Flags().StringVar(&roleName, "role", "", "over everything: none, read, write or manage")
	grants.add(cmd, true)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) (err error) {
		var patch client.UserPatch
		patch.Role, patch.Grants, err = grants.change(roleName, func() ([]client.Grant, error) {
			now, err := client.Get[client.User](api.GetUser(ctx, args[0]))
			return now.Grants, err
		})
		if err != nil {
			return err
		}
		if patch == (client.UserPatch{}) {
			return usagef("user edit: say what is to change: --role, --grant or --revoke")
		}
		return a.userPatch(ctx, api, args[0], patch)
	})
	return cmd
}

func (a *app) userSetPassword() *cobra.Command {
	var stdin, current bool
	cmd := &cobra.Command{
		Use:     "set-password NAME",
		Aliases: []string{"reset-password"},
		Short:   "Change a user's password; asks for it",
		Long: "Change a user's password; asks for it. A user's own password needs --current, which asks for the present one first.\n" +
			"With --password-stdin each is a line of standard input.",
		Args: names("NAME"),
	}
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read from standard input")
	cmd.Flags().BoolVar(&current, "current", false, "give the present password too")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		var patch client.UserPatch
		if current {
			old, err := a.password(ctx, "present password of "+args[0], stdin, false)
			if err != nil {
				return err
			}
			patch.CurrentPassword = &old
		}
		password, err := a.password(ctx, "new password of "+args[0], stdin, true)
		if err != nil {
			return err
		}
		patch.Password = &password
		return a.userPatch(ctx, api, args[0], patch)
	})
	return cmd
}

func (a *app) userMakeLocal() *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{Use: "make-local NAME", Short: "Give a user of the sign-in provider a password in place of the provider's word", Args: names("NAME")}
	cmd.Long = "Give a user of the sign-in provider a password, for good: the provider has no say in it any more. Who comes from there\n" +
		"with that name is refused from then on."
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		password, err := a.password(ctx, "password of "+args[0], stdin, true)
		if err != nil {
			return err
		}
		return a.userPatch(ctx, api, args[0], client.UserPatch{External: new(false), Password: &password})
	})
	return cmd
}

// userPatch changes a user and prints it.
func (a *app) userPatch(ctx context.Context, api *client.Client, name string, patch client.UserPatch) error {
	u, err := client.Get[client.User](api.UpdateUser(ctx, name, patch))
	if err != nil {
		return err
	}
	return a.printUser(u)
}

func (a *app) userDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "Delete a user with its tokens", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Delete user "+args[0]+" and its tokens?"); err != nil {
			return err
		}
		return client.Done(api.DeleteUser(ctx, args[0]))
	})
	return cmd
}

// printUser prints a user.
func (a *app) printUser(u client.User) error {
	rows := [][]string{{"name", u.Name}, {"role", string(u.Role)}, {"signs in", signsIn(u)}}
	if len(u.Grants)+len(u.Groups) > 0 {
		rows = append(rows, []string{"grants", strings.Join(grantWords(u.Grants), ", ")})
		for _, from := range u.Sources {
			if from.Group != nil {
				rows = append(rows, []string{"group " + *from.Group, rightsText(from.Rights.Role, from.Rights.Grants)})
			}
		}
		rows = append(rows, []string{"may", rightsText(u.Effective.Role, u.Effective.Grants)})
	}
	if e := u.External; e != nil {
		rows = append(rows, []string{"issuer", e.Issuer}, []string{"subject", e.Subject}, []string{"last sign-in", formatTime(&e.SeenAt)})
	}
	return printOne(a, u, append(rows, []string{"created", formatTime(&u.Created)}))
}

// signsIn says how a user signs in.
func signsIn(u client.User) string {
	switch {
	case u.External == nil:
		return "password"
	case u.External.Counts:
		return "provider"
	}
	return "provider, refused now"
}

func (a *app) tokenCreate() *cobra.Command {
	var user string
	var limit limitFlags
	var expires expiryFlag
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a token and print its secret, once",
		Example: "  OVGATE_TOKEN=$(ovgate user token create backup --role read --expires 720h -o json | jq -r .secret)",
		Args:    names("NAME"),
	}
	limit.add(cmd)
	cmd.Flags().StringVar(&user, "user", "", "user it belongs to (default the one who asks)")
	cmd.Flags().Var(&expires, "expires", "when it ends: after a time such as 720h, or at 2030-01-31 or 2030-01-31T12:00:00Z (default never)")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		r, grants, err := limit.limit()
		if err != nil {
			return err
		}
		t, err := client.Get[client.NewToken](api.CreateToken(ctx, &client.CreateTokenParams{IdempotencyKey: new(rand.Text())},
			client.TokenInput{Name: args[0], Role: r, Grants: grants, User: given(user), Expires: expires.time(time.Now())}))
		if err != nil {
			return err
		}
		return printOne(a, t, [][]string{
			{"secret", t.Secret},
			{"id", t.Token.ID},
			{"name", t.Token.Name},
			{"user", t.Token.User},
			{"may", rightsText(t.Token.Role, t.Token.Grants)},
			{"expires", formatTime(t.Token.Expires)},
		})
	})
	return cmd
}

// expiryFlag is a time, absolute or from now.
type expiryFlag struct {
	text string
	at   time.Time
	in   time.Duration
}

// Set implements pflag.Value.
func (f *expiryFlag) Set(s string) error {
	in, err := time.ParseDuration(s)
	if err == nil && in > 0 {
		f.text, f.in, f.at = s, in, time.Time{}
		return nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, s); err == nil {
			f.text, f.in, f.at = s, 0, at
			return nil
		}
	}
	return usagef("write a time from now such as 720h, or a date such as 2030-01-31")
}

// String implements pflag.Value.
func (f *expiryFlag) String() string { return f.text }

// Type implements pflag.Value.
func (f *expiryFlag) Type() string { return "TIME" }

// time returns the moment, or nil when the flag was not given.
func (f *expiryFlag) time(now time.Time) *time.Time {
	switch {
	case f.in > 0:
		return new(now.Add(f.in).UTC().Truncate(time.Second))
	case !f.at.IsZero():
		return &f.at
	}
	return nil
}

func (a *app) tokenList() *cobra.Command {
	var user string
	cmd := &cobra.Command{Use: "list", Short: "List tokens, without their secrets", Args: names()}
	cmd.Flags().StringVar(&user, "user", "", "only those of this user")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Token, *string, error) {
			l, err := client.Get[client.TokenList](api.ListTokens(ctx, &client.ListTokensParams{Limit: new(pageSize), Cursor: cursor, User: given(user)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"ID", "NAME", "USER", "MAY", "CREATED", "EXPIRES"}, func(t client.Token) []string {
			return []string{t.ID, t.Name, t.User, rightsText(t.Role, t.Grants), formatTime(&t.Created), formatTime(t.Expires)}
		})
	})
	return cmd
}

func (a *app) tokenRevoke() *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID", Short: "Revoke a token", Args: names("ID")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Revoke token "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteToken(ctx, args[0]))
	})
	return cmd
}
