package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// man returns the hidden verb that writes a manual page per verb, for packages. The pages
// are of today, or of SOURCE_DATE_EPOCH (seconds since 1970).
func (a *app) man() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages of all verbs into a directory",
		Hidden: true,
		Args:   names("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			err := os.MkdirAll(args[0], 0o755)
			if err == nil {
				err = doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "ovgate", Manual: "ovgate"}, args[0])
			}
			if err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			return nil
		},
	}
}
