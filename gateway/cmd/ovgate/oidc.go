package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// maxSecretFile bounds a file with a secret, in bytes; the API takes 1024.
const maxSecretFile = 4096

// oidc returns the verbs of the sign-in provider.
func (a *app) oidc() *cobra.Command {
	return group("oidc", "The OpenID Connect provider that people sign in to the console through",
		a.oidcSet(), a.oidcShow(), a.oidcTest(), a.oidcRemove())
}

func (a *app) oidcSet() *cobra.Command {
	var name, issuer, clientID, nameClaim, groupsClaim, ca, secretFile string
	var secretStdin, noSecret bool
	var addresses, scopes, roles []string
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Set the provider, or change it, after it was tried",
		Long: "Set the provider, or change it; what is not given stays. A new one needs --issuer, --client-id, --address and --role.\n" +
			"It is tried when the way to it changes. The client's secret is kept sealed, and shown nowhere. Register at the\n" +
			"provider, for each address, the redirect URI ADDRESS/login/oidc and, where it asks, ADDRESS/login for after a sign-out.\n\n" +
			"People who sign in so become users without a password, whose role follows their groups; nobody else gets in. A user\n" +
			"of this cluster is never taken over by a name. Programs use tokens of ovgate: those of the provider are not taken.",
		Example: "  ovgate oidc set --name 'Example SSO' --issuer https://id.example.org/realms/main --client-id ovgate --secret-file secret \\\n" +
			"    --address https://ovgate.example.org:8443 --role storage-admins=manage --role operators=write",
		Args: names(),
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "what people know it by (default OpenID Connect)")
	f.StringVar(&issuer, "issuer", "", "its address, exactly as it calls itself")
	f.StringVar(&clientID, "client-id", "", "client that is registered there")
	f.StringVar(&secretFile, "secret-file", "", "file with the secret of the client")
	f.BoolVar(&secretStdin, "secret-stdin", false, "read the secret from standard input; a terminal is asked")
	f.BoolVar(&noSecret, "no-secret", false, "the client is a public one")
	f.StringArrayVar(&addresses, "address", nil, "https://HOST:PORT of the console as browsers show it; several times, replaces all")
	f.StringSliceVar(&scopes, "scopes", nil, "what is asked for (default openid,profile,email)")
	f.StringVar(&nameClaim, "name-claim", "", "claim that names a new user (default preferred_username)")
	f.StringVar(&groupsClaim, "groups-claim", "", "claim with the groups; a.b is b within a (default groups)")
	f.StringArrayVar(&roles, "role", nil, "GROUP=read|write|manage: who may enter, and as what; several times, replaces all")
	f.StringVar(&ca, "provider-ca", "", "file of certificates in PEM to trust in place of the system's; - for the system's again")
	cmd.MarkFlagsMutuallyExclusive("secret-file", "secret-stdin", "no-secret")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		in := client.OidcInput{Name: given(name), Issuer: given(issuer), ClientID: given(clientID), NameClaim: given(nameClaim), GroupsClaim: given(groupsClaim)}
		if addresses != nil {
			in.Addresses = &addresses
		}
		if scopes != nil {
			in.Scopes = &scopes
		}
		var err error
		if roles != nil {
			if in.Roles, err = oidcRoles(roles); err != nil {
				return err
			}
		}
		if ca != "" {
			pem := ""
			if ca != "-" {
				if pem, err = readBounded(ca, maxCA); err != nil {
					return err
				}
			}
			in.Ca = &pem
		}
		if in.Secret, err = a.oidcSecret(ctx, secretFile, secretStdin, noSecret); err != nil {
			return err
		}
		if in == (client.OidcInput{}) {
			return usagef("oidc set: nothing to set was given")
		}
		r, err := client.Get[client.OidcResult](api.SetOidc(ctx, in))
		if err != nil {
			return err
		}
		return printOne(a, r, append(oidcRows(r.Provider), stepRows(r.Steps)...))
	})
	return cmd
}

// oidcSecret reads the client's secret from where it was said to be; nil: from nowhere.
func (a *app) oidcSecret(ctx context.Context, file string, stdin, none bool) (*string, error) {
	const what = "secret of the client"
	var secret string
	var err error
	switch {
	case none:
		return new(""), nil
	case file != "":
		secret, err = readBounded(file, maxSecretFile)
		if secret = strings.TrimRight(secret, "\r\n"); err == nil && secret == "" {
			err = usagef("the %s in %s is empty", what, file)
		}
	case stdin && a.terminal != nil:
		secret, err = a.ask(ctx, what)
	case stdin:
		secret, err = a.secretLine(ctx, what)
	default:
		return nil, nil
	}
	return &secret, err
}

// oidcRoles reads GROUP=ROLE; a group may have "=" in it.
func oidcRoles(in []string) (*[]client.OidcRole, error) {
	out := []client.OidcRole{}
	for _, s := range in {
		i := strings.LastIndexByte(s, '=')
		if i < 1 {
			return nil, usagef("--role %q: write GROUP=read, GROUP=write or GROUP=manage", s)
		}
		r, err := role(s[i+1:])
		if err != nil {
			return nil, err
		}
		out = append(out, client.OidcRole{Group: s[:i], Role: r})
	}
	return &out, nil
}

func (a *app) oidcShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "Show the provider", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		o, err := client.Get[client.Oidc](api.GetOidc(ctx))
		if err != nil {
			return err
		}
		if !o.Configured && a.output != outputJSON {
			return printRows(a.out, [][]string{{"provider", "none: people sign in with passwords"}})
		}
		return printOne(a, o, oidcRows(o))
	})
	return cmd
}

func (a *app) oidcTest() *cobra.Command {
	cmd := &cobra.Command{Use: "test", Short: "Try what is needed of the provider, as far as that goes without a person", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		r, err := client.Get[client.OidcResult](api.TestOidc(ctx))
		if err != nil {
			return err
		}
		if err := printOne(a, r, append(oidcRows(r.Provider), stepRows(r.Steps)...)); err != nil {
			return err
		}
		return allWork("sign-in provider", r.Steps)
	})
	return cmd
}

func (a *app) oidcRemove() *cobra.Command {
	cmd := &cobra.Command{Use: "remove", Short: "Forget the provider", Args: names()}
	cmd.Long = "Forget the provider. Its users stay, but their sessions and tokens do not count until one of the same issuer is set."
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		if err := a.confirm(ctx, "Forget the sign-in provider? Nobody signs in through it any more."); err != nil {
			return err
		}
		return client.Done(api.DeleteOidc(ctx))
	})
	return cmd
}

func oidcRows(o client.Oidc) [][]string {
	secret := "none: a public client"
	if o.HasSecret {
		secret = "set"
	}
	rows := [][]string{
		{"name", o.Name}, {"issuer", o.Issuer}, {"client", o.ClientID}, {"secret", secret}, {"scopes", strings.Join(o.Scopes, " ")},
		{"name claim", o.NameClaim}, {"groups claim", o.GroupsClaim},
	}
	for _, r := range o.Roles {
		rows = append(rows, []string{"role " + string(r.Role), r.Group})
	}
	for _, u := range o.RedirectUris {
		rows = append(rows, []string{"redirect URI", u})
	}
	if o.Ca != "" {
		rows = append(rows, []string{"CA", "its own"})
	}
	return rows
}
