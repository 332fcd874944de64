package node

import (
	"runtime"
	"runtime/debug"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/journal"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Version says what this program is: version names it, empty for what the Go
// tool chain recorded. GET /version and the verb version both show it.
func Version(version string) api.Version {
	v := api.Version{Version: version, Go: runtime.Version(), Formats: formats()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = info.Main.Version
		}
		v.Commit = commit(info.Settings)
	}
	if v.Version == "" || v.Version == "(devel)" {
		v.Version = "devel"
	}
	return v
}

// formats are the newest formats that this program reads and writes, by name.
func formats() map[string]int {
	return map[string]int{
		"data": formatVersion, "model": model.Format, "registry": volume.RecordFormat, // of the node
		"journal": journal.FormatVersion, "map": blockmap.FormatVersion,
		"root": volume.RootFormat, "head": volume.HeadFormat, "sco": sco.FormatVersion, "tlog": tlog.FormatVersion, // of the backend
	}
}

// commit is the revision that was built, marked when files had changed.
func commit(settings []debug.BuildSetting) string {
	rev, changed := "", ""
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+changes"
		}
	}
	return rev + changed
}
