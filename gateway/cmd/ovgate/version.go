package main

import (
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/node"
	"github.com/openvstorage/ovgate/internal/client"
)

// release names the version of a package, set by the linker; empty: what the Go tool
// chain recorded.
var release string

// build returns the version of this program, as GET /version of a node tells its own.
func build() client.Version {
	v := node.Version(release)
	return client.Version{Version: v.Version, Commit: v.Commit, Go: v.Go, Formats: v.Formats}
}

// version returns the verb that shows the version of this program.
func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program and of the formats it writes",
		Args:  names(),
		RunE: func(*cobra.Command, []string) error {
			if err := a.checkFlags(); err != nil {
				return err
			}
			v := build()
			rows := [][]string{{"version", v.Version}, {"commit", dash(v.Commit)}, {"go", v.Go}}
			for _, name := range slices.Sorted(maps.Keys(v.Formats)) {
				rows = append(rows, []string{"format " + name, strconv.Itoa(v.Formats[name])})
			}
			return printOne(a, v, rows)
		},
	}
}
