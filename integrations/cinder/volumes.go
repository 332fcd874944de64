package cinder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Labels that the driver gives vDisks.
const (
	LabelVolume  = "cinder-volume"  // id of the volume
	LabelProject = "cinder-project" // id of its project
	// LabelSnapshot is of a snapshot of a vDisk: the id of the volume's snapshot. Members of
	// group snapshots, and snapshots that Cinder took over, have it not, or a former one.
	LabelSnapshot = "cinder-snapshot"
)

// VDisk is a vDisk as far as it can be a volume's.
type VDisk struct {
	ID, Name, VPool string
	Volume, Project string // by its labels; empty: it is no volume's
	Size, Stored    int64  // bytes
	// Snapshots are its snapshots; nil: they are not known.
	Snapshots []Snapshot
}

// Snapshot is one of a vDisk, or of a volume.
type Snapshot struct {
	ID, Name string
	Of       string // of a vDisk: LabelSnapshot; of a volume: id of the volume
}

// Volume is a volume on a backend of this ovgate.
type Volume struct {
	ID, Name     string
	Project      string // id
	ProjectName  string // empty: not known
	Status, Type string
	Host         string // HOST@SECTION
	VPool        string // by the host
	GiB          int64
	Attached     []string // hosts
	VDisk        string   // id; empty: there is none
	VDiskName    string   // that it has or should have
	Stored       int64    // bytes
}

// Orphan is a side of a pair whose other side is not there.
type Orphan struct {
	VDisk  *VDisk  // without volume
	Volume *Volume // without vDisk
	// Snapshot, when set, is what has no other side, of the VDisk or of the Volume.
	Snapshot *Snapshot
	Why      string
}

// Usage is what a project has.
type Usage struct {
	Project, Name string // id, and name if it is known
	Volumes       int
	GiB           int64 // as Cinder counts
	Stored        int64 // bytes on backends
}

// Mapping is what Map found.
type Mapping struct {
	Volumes []Volume // by project, name and id
	Missing []Orphan // volumes without vDisk
	// Seen are the ids of all volumes of the cloud, with where those are that are on no
	// backend of this ovgate. A volume that is on its way is at the empty place.
	Seen map[string]string
}

// cinderVolume is what matters of an answer about a volume.
type cinderVolume struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Status      string `json:"status"`
	Size        int64  `json:"size"`
	Type        string `json:"volume_type"`
	Host        string `json:"os-vol-host-attr:host"`
	Project     string `json:"os-vol-tenant-attr:tenant_id"`
	Migration   string `json:"os-vol-mig-status-attr:migstat"`
	NameID      string `json:"os-vol-mig-status-attr:name_id"`
	Attachments []struct {
		Host string `json:"host_name"`
	} `json:"attachments"`
}

// nameID is what the name of the vDisk is made of.
func (v cinderVolume) nameID() string { return cmp.Or(v.NameID, v.ID) }

// vdiskName is the driver's name for a volume's vDisk, with Cinder's default
// volume_name_template.
func (v cinderVolume) vdiskName() string { return "volume-" + v.nameID() }

// settledIn are the states in which a volume has its vDisk. In others it may have it not yet
// or no more, or none, as after an error.
var settledIn = []string{"available", "in-use", "reserved", "attaching", "detaching", "uploading", "backing-up", "maintenance", "awaiting-transfer", "error_extending", "error_backing-up"}

// moving tells whether Cinder is about to change the volume's place.
func (v cinderVolume) moving() bool {
	switch v.Migration {
	case "", "none", "success", "error":
		return v.Status == "retyping"
	}
	return true
}

// settled tells whether a volume has to have its vDisk.
func (v cinderVolume) settled() bool { return slices.Contains(settledIn, v.Status) && !v.moving() }

// restartsMax bounds how often a list is begun anew because a volume at the end of a page
// was deleted.
const restartsMax = 5

// volumes lists those of all projects. A volume that is there all the time is in it.
func (c *Cloud) volumes(ctx context.Context) ([]cinderVolume, error) {
	return restarting(ctx, c.volumesOnce)
}

func restarting[T any](ctx context.Context, once func(context.Context) ([]T, error)) ([]T, error) {
	for n := 0; ; n++ {
		all, err := once(ctx)
		if n == restartsMax || !errors.Is(err, errMarkerGone) {
			return all, err
		}
	}
}

var errMarkerGone = errors.New("the last object of a page was deleted")

func (c *Cloud) volumesOnce(ctx context.Context) ([]cinderVolume, error) {
	return pages(ctx, c, "volumes", func(v cinderVolume) string { return v.ID })
}

// pages lists volumes or snapshots of all projects, page by page.
func pages[T any](ctx context.Context, c *Cloud, kind string, id func(T) string) ([]T, error) {
	var all []T
	query := url.Values{"all_tenants": {"1"}, "limit": {strconv.Itoa(pageSize)}, "sort": {"created_at:asc,id:asc"}}
	for {
		page := map[string]json.RawMessage{}
		err := get(ctx, c.volume, "list "+kind, c.volume.ServiceURL(kind, "detail")+"?"+query.Encode(), &page)
		if status(err, http.StatusNotFound) && query.Has("marker") {
			return nil, fmt.Errorf("%w: %w", errMarkerGone, err)
		}
		var rows []T
		if err == nil {
			err = explain("list "+kind, json.Unmarshal(page[kind], &rows))
		}
		if err != nil {
			return nil, err
		}
		// Cinder may have a smaller page than was asked for, so that only an empty one
		// is the end.
		if len(rows) == 0 {
			return all, nil
		}
		all = append(all, rows...)
		last := id(rows[len(rows)-1])
		if len(all) > itemsMax || last == "" || last == query.Get("marker") {
			return nil, fmt.Errorf("list %s: %w: the list does not end, after %d", kind, ErrRefused, len(all))
		}
		query.Set("marker", last)
	}
}

// byVolume finds vDisks by name, which is unique in a vPool only, and by label.
type byVolume struct{ name, label map[string][]*VDisk }

func index(disks []VDisk) byVolume {
	i := byVolume{map[string][]*VDisk{}, map[string][]*VDisk{}}
	for n := range disks {
		d := &disks[n]
		i.name[d.Name] = append(i.name[d.Name], d)
		if d.Volume != "" {
			i.label[d.Volume] = append(i.label[d.Volume], d)
		}
	}
	return i
}

// find returns the vDisk of a volume; nil: there is none. The name is the key; the label
// helps where Cinder has a name template of its own. Of several it is the one in the
// volume's pool; one that an image is copied into counts last.
func (i byVolume) find(v cinderVolume) *VDisk {
	_, pool, _ := strings.Cut(v.Host, "#")
	for _, all := range [][]*VDisk{i.name[v.vdiskName()], i.label[v.nameID()], i.label[v.ID]} {
		var best *VDisk
		rank := -1
		for _, d := range all {
			r := 0
			if !strings.HasSuffix(d.Name, "-image") {
				r += 2
			}
			if d.VPool == pool {
				r++
			}
			if r > rank {
				best, rank = d, r
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// Map lists the volumes on backends of this ovgate with their vDisks. list is called after
// the volumes were listed. A volume without a vDisk is missing one only if it is still
// there, settled and where it was, when they are listed again after that.
func (c *Cloud) Map(ctx context.Context, backends []Backend, list func() []VDisk) (Mapping, error) {
	m := Mapping{Seen: map[string]string{}}
	ours := map[string]bool{}
	for _, b := range backends {
		ours[b.Host] = true
	}
	all, err := c.volumes(ctx)
	if err != nil {
		return m, err
	}
	names, err := c.projects(ctx)
	if err != nil {
		return m, err
	}
	disks := index(list())
	alone := map[string]cinderVolume{}
	for _, v := range all {
		host, vpool, _ := strings.Cut(v.Host, "#")
		place := v.Host
		if ours[host] || v.moving() || v.Host == "" {
			place = ""
		}
		m.Seen[v.ID], m.Seen[v.nameID()] = place, place
		if !ours[host] {
			continue
		}
		out := Volume{
			ID: v.ID, Name: v.Name, Project: v.Project, ProjectName: names[v.Project], Status: v.Status, Type: v.Type, Host: host, VPool: vpool,
			GiB: v.Size, VDiskName: v.vdiskName(),
		}
		for _, a := range v.Attachments {
			out.Attached = append(out.Attached, a.Host)
		}
		if d := disks.find(v); d != nil {
			out.VDisk, out.VDiskName, out.Stored = d.ID, d.Name, d.Stored
		} else if v.settled() {
			alone[v.ID] = v
		}
		m.Volumes = append(m.Volumes, out)
	}
	slices.SortFunc(m.Volumes, func(a, b Volume) int {
		return cmp.Or(cmp.Compare(a.ProjectName, b.ProjectName), cmp.Compare(a.Project, b.Project), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	if len(alone) == 0 {
		return m, nil
	}
	again, err := c.volumes(ctx)
	if err != nil {
		return m, err
	}
	still := map[string]bool{}
	for _, v := range again {
		was, ok := alone[v.ID]
		still[v.ID] = ok && v.settled() && v.nameID() == was.nameID() && v.Host == was.Host
	}
	for i := range m.Volumes {
		if v := &m.Volumes[i]; v.VDisk == "" && still[v.ID] {
			m.Missing = append(m.Missing, Orphan{Volume: v, Why: "there is no vDisk " + v.VDiskName + " for it"})
		}
	}
	return m, nil
}

// OrphanDisks are the vDisks of Cinder that have no volume in any of the clouds. before were
// listed before the clouds were asked, after has the ids that were there afterwards: a vDisk
// that goes meanwhile is none, nor is one that a volume begins with, because Cinder has the
// volume first.
func OrphanDisks(before []VDisk, after map[string]bool, clouds ...Mapping) []Orphan {
	var out []Orphan
	for i := range before {
		d := &before[i]
		if d.Volume == "" || !after[d.ID] {
			continue
		}
		known, place := false, ""
		for _, m := range clouds {
			for _, id := range []string{d.Volume, strings.TrimSuffix(strings.TrimPrefix(d.Name, "volume-"), "-image")} {
				if at, ok := m.Seen[id]; ok {
					if !known || at == "" {
						place = at
					}
					known = true
				}
			}
		}
		switch {
		case !known:
			out = append(out, Orphan{VDisk: d, Why: fmt.Sprintf("there is no volume %s", d.Volume)})
		case place != "":
			out = append(out, Orphan{VDisk: d, Why: fmt.Sprintf("volume %s is on %s", d.Volume, place)})
		}
	}
	return out
}

// Usages sums up volumes by project.
func Usages(volumes []Volume) []Usage {
	var out []Usage
	at := map[string]int{}
	for _, v := range volumes {
		i, ok := at[v.Project]
		if !ok {
			i = len(out)
			at[v.Project] = i
			out = append(out, Usage{Project: v.Project, Name: v.ProjectName})
		}
		out[i].Volumes++
		out[i].GiB += v.GiB
		out[i].Stored += v.Stored
	}
	slices.SortFunc(out, func(a, b Usage) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Project, b.Project)) })
	return out
}
