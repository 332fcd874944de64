package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// scopeUsage says what a scope is.
const scopeUsage = "vpool:NAME or backend:NAME"

// grantFlags are the flags that give roles on vPools and backends, and take them back.
type grantFlags struct{ grant, revoke []string }

func (f *grantFlags) add(cmd *cobra.Command, revoke bool) {
	cmd.Flags().StringArrayVar(&f.grant, "grant", nil, "role on a scope, ROLE:SCOPE, such as write:vpool:fast; a scope is "+scopeUsage+" (may be repeated)")
	if revoke {
		cmd.Flags().StringArrayVar(&f.revoke, "revoke", nil, "take a role on a scope back: SCOPE or ROLE:SCOPE (may be repeated)")
	}
}

// parseGrant reads ROLE:SCOPE.
func parseGrant(s string) (client.GrantInput, error) {
	word, scope, _ := strings.Cut(s, ":")
	r, err := role(word)
	if err != nil || !isScope(scope) {
		return client.GrantInput{}, usagef("grant %q: write ROLE:SCOPE such as write:vpool:fast; a scope is %s", s, scopeUsage)
	}
	return client.GrantInput{Role: r, Scope: scope}, nil
}

func isScope(s string) bool {
	kind, name, _ := strings.Cut(s, ":")
	return (kind == "vpool" || kind == "backend") && name != ""
}

// given returns the grants that are asked for; nil: none.
func (f *grantFlags) given() (*[]client.GrantInput, error) {
	if len(f.grant) == 0 {
		return nil, nil
	}
	return f.of(nil)
}

// change returns what a role, empty for the one that there is, and the flags change; present asks for
// the grants that there are.
func (f *grantFlags) change(word string, present func() ([]client.Grant, error)) (role *client.RoleOrNone, grants *[]client.GrantInput, err error) {
	if word != "" {
		r, err := roleOrNone(word)
		if err != nil {
			return nil, nil, err
		}
		role = &r
	}
	if len(f.grant)+len(f.revoke) == 0 {
		return role, nil, nil
	}
	now, err := present()
	if err != nil {
		return nil, nil, err
	}
	grants, err = f.of(now)
	return role, grants, err
}

// of returns the grants that there are to be in place of present ones.
func (f *grantFlags) of(present []client.Grant) (*[]client.GrantInput, error) {
	out := []client.GrantInput{}
	for _, g := range present {
		out = append(out, client.GrantInput{Role: g.Role, Scope: g.Scope})
	}
	for _, text := range f.revoke {
		scope := text
		if !isScope(scope) {
			g, err := parseGrant(text)
			if err != nil {
				return nil, usagef("revoke %q: write SCOPE or ROLE:SCOPE such as vpool:fast; a scope is %s", text, scopeUsage)
			}
			scope = g.Scope
		}
		kind, _, _ := strings.Cut(scope, ":")
		i := slices.IndexFunc(present, func(g client.Grant) bool {
			return (g.Scope == scope || strings.HasPrefix(g.Scope, kind+":") && kind+":"+g.Name == scope) && (scope == text || strings.HasPrefix(text, string(g.Role)+":"))
		})
		if i < 0 {
			return nil, usagef("revoke %q: there is no such grant; ovgate shows those that there are", text)
		}
		out = slices.DeleteFunc(out, func(g client.GrantInput) bool { return g.Scope == present[i].Scope })
	}
	for _, text := range f.grant {
		g, err := parseGrant(text)
		if err != nil {
			return nil, err
		}
		kind, name, _ := strings.Cut(g.Scope, ":")
		for _, p := range present { // a role on a scope replaces the one before
			if p.Exists && p.Name == name && strings.HasPrefix(p.Scope, kind+":") {
				out = slices.DeleteFunc(out, func(o client.GrantInput) bool { return o.Scope == p.Scope })
			}
		}
		out = append(out, g)
	}
	return &out, nil
}

// rightsText says in words what somebody may do.
func rightsText(over client.RoleOrNone, grants []client.Grant) string {
	var words []string
	if over != client.RoleOrNoneNone && over != "" {
		words = append(words, string(over))
	}
	words = append(words, grantWords(grants)...)
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

func grantWords(grants []client.Grant) (words []string) {
	for _, g := range grants {
		kind, _, _ := strings.Cut(g.Scope, ":")
		text := string(g.Role) + " on " + kind + " " + g.Name
		if !g.Exists {
			text += " (gone)"
		}
		words = append(words, text)
	}
	return words
}

// limitFlags are the flags of what a token or client may at most.
type limitFlags struct {
	role   string
	scopes []string
}

func (f *limitFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.role, "role", string(client.RoleRead), "read, write or manage; at most the user's own")
	cmd.Flags().StringArrayVar(&f.scopes, "scope", nil, "the role is for this alone: "+scopeUsage+" (may be repeated; default everything)")
}

func (f *limitFlags) limit() (client.RoleOrNone, *[]client.GrantInput, error) {
	r, err := role(f.role)
	if err != nil || len(f.scopes) == 0 {
		return client.RoleOrNone(r), nil, err
	}
	var grants []client.GrantInput
	for _, s := range f.scopes {
		if !isScope(s) {
			return "", nil, usagef("scope %q: write %s", s, scopeUsage)
		}
		grants = append(grants, client.GrantInput{Role: r, Scope: s})
	}
	return client.RoleOrNoneNone, &grants, nil
}

// whoami says who asks, and what they may.
func (a *app) whoami() *cobra.Command {
	cmd := &cobra.Command{Use: "whoami", Short: "Say who asks and what that user or token may", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		s, err := client.Get[client.Session](api.GetSession(ctx))
		if err != nil {
			return err
		}
		if s.User == nil || s.Role == nil {
			return printOne(a, s, [][]string{{"user", "nobody"}, {"may", "nothing"}})
		}
		return printOne(a, s, [][]string{{"user", *s.User}, {"may", rightsText(*s.Role, s.Grants)}, {"until", formatTime(s.Expires)}})
	})
	return cmd
}
