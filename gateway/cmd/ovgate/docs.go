package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// docs returns the verbs of the documentation that a node has.
func (a *app) docs() *cobra.Command {
	return group("docs", "Documentation of a node: operations, troubleshooting, causes of bad health", a.docsList(), a.docsShow())
}

// documents lists the documents of a node.
func documents(ctx context.Context, api *client.Client) ([]client.DocumentTitle, error) {
	p := client.ListDocumentsParams{Limit: new(pageSize)}
	var items []client.DocumentTitle
	for {
		l, err := client.Get[client.DocumentList](api.ListDocuments(ctx, &p))
		if err != nil {
			return nil, err
		}
		items = append(items, l.Items...)
		if p.Cursor = l.Next; l.Next == nil {
			return items, nil
		}
	}
}

func (a *app) docsList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the documents", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := documents(ctx, api)
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "TITLE"}, func(d client.DocumentTitle) []string { return []string{d.Name, d.Title} })
	})
	return cmd
}

func (a *app) docsShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Print a document, as Markdown",
		Args:  names("NAME"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			return a.complete(cmd, args, func(ctx context.Context, api *client.Client) ([]string, error) {
				items, err := documents(ctx, api)
				var out []string
				for _, d := range items {
					if strings.HasPrefix(d.Name, prefix) {
						out = append(out, d.Name)
					}
				}
				return out, err
			})
		},
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		d, err := client.Get[client.Document](api.GetDocument(ctx, args[0]))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printOne(a, d, nil)
		}
		_, err = fmt.Fprint(a.out, d.Text)
		return err
	})
	return cmd
}
