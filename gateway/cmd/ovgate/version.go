package main

import (
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// build returns the version of this program as the Go tool chain recorded it.
func build() client.Version {
	v := client.Version{Version: "devel", Go: runtime.Version(), Formats: map[string]int{
		"head": volume.HeadFormat, "model": model.Format, "registry": volume.RecordFormat, "root": volume.RootFormat,
	}}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := info.Main.Version; m != "" && m != "(devel)" {
		v.Version = m
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value + v.Commit
		case "vcs.modified":
			if s.Value == "true" {
				v.Commit += "+changes"
			}
		}
	}
	return v
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
