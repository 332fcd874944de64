package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// run carries out a command line and returns the exit code.
func run(ctx context.Context, args []string, a *app) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err != nil {
		a.report(err)
	}
	return exitCode(err)
}

// root returns the tree of verbs.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "ovgate",
		Short:         "Software-defined block storage: run a node, operate nodes",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&a.data, "data", "", "data directory of the node on this machine (OVGATE_DATA; default "+defaultData+")")
	f.StringVar(&a.url, "url", "", "address of a node, https://HOST:8443 (OVGATE_URL)")
	f.StringVar(&a.ca, "ca", "", "file with the node's CA, PEM (OVGATE_CA)")
	f.StringVar(&a.tokenFile, "token-file", "", "file with a bearer token, mode 0600 (or OVGATE_TOKEN)")
	f.StringVarP(&a.output, "output", "o", outputTable, "table or json")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "give up waiting for the node after this long; 0: never")
	f.BoolVarP(&a.yes, "yes", "y", false, "do not ask before something is lost")
	root.AddCommand(a.node(), a.cluster(), a.domain(), a.vpool(), a.backend(), a.vdisk(), a.snapshot(), a.template(), a.trash(), a.schedule(), a.alba(), a.osd(), a.preset(), a.namespace(), a.task(), a.target(), a.session(), a.user(), a.userGroup(), a.oauthClient(), a.whoami(), a.oidc(), a.event(), a.audit(), a.alert(), a.status(), a.metadata(), a.support(), a.docs(), a.openstack(), a.vsphere(), a.bench(), a.inspect(), a.version(), a.serve(), a.asd(), a.man())
	return root
}

// group returns a command that only holds verbs.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a verb", verb(cmd))
		},
	}
	cmd.AddCommand(verbs...)
	return cmd
}

// noVerb refuses an unknown verb and names the nearest ones.
func noVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	text := fmt.Sprintf("there is no verb %q", strings.TrimSpace(verb(cmd)+" "+args[0]))
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %s?", near[0])
	}
	return usagef("%s", text)
}

// verb returns the words of a command after the program's name.
func verb(cmd *cobra.Command) string {
	return strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()))
}

// names checks that there is one argument per name.
func names(want ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(want) {
			return usagef("%s: %s is missing", verb(cmd), want[len(args)])
		}
		if len(args) > len(want) {
			return usagef("%s: unexpected argument %q", verb(cmd), args[len(want)])
		}
		for i, arg := range args {
			if arg == "" {
				return usagef("%s: %s is empty", verb(cmd), want[i])
			}
		}
		return nil
	}
}
