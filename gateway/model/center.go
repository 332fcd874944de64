package model

import (
	"context"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Center is a vCenter, or an ESXi host alone, whose hosts may use vDisks of this cluster.
type Center struct {
	Format int        `json:"format"`
	ID     string     `json:"id"` // UUID
	Name   string     `json:"name"`
	Spec   CenterSpec `json:"spec"`
	Secret []byte     `json:"secret,omitempty"` // password, sealed with ID
	// Clusters are those that have datastores of ours, with what their hosts prove.
	Clusters []CenterCluster `json:"clusters,omitempty"`
	// What the newest test found.
	Kind     string    `json:"kind,omitempty"` // "vcenter" or "esxi"
	Version  string    `json:"version,omitempty"`
	Instance string    `json:"instance,omitempty"` // UUID that it calls itself
	Hosts    int       `json:"hosts,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
	Tested   time.Time `json:"tested,omitzero"`
	Created  time.Time `json:"created"`

	Rev int64 `json:"-"`
}

// CenterSpec says how to sign in.
type CenterSpec struct {
	URL        string `json:"url"`
	User       string `json:"user"`
	Thumbprint string `json:"thumbprint"`              // SHA-256 of the certificate that is trusted
	TimeoutMs  int64  `json:"timeoutMillis,omitempty"` // of each request
	NoEvents   bool   `json:"noEvents,omitempty"`      // it is not told what happens to datastores
	Mutual     bool   `json:"mutual,omitempty"`        // its hosts have the target prove itself, too
}

// CenterCluster is a cluster of hosts, or a host alone, with the target that it has.
type CenterCluster struct {
	ID     string `json:"id"` // managed object id
	Name   string `json:"name"`
	Target string `json:"target,omitempty"` // id of the shared target; empty: not made yet
	// CHAPUser and CHAPSecret are what its hosts prove; the secret is sealed with the
	// Center's ID.
	CHAPUser   string `json:"chapUser"`
	CHAPSecret []byte `json:"chapSecret"`
	// MutualUser and MutualSecret are what the target proves to them, likewise; empty: never asked for.
	MutualUser   string `json:"mutualUser,omitempty"`
	MutualSecret []byte `json:"mutualSecret,omitempty"`
}

// Cluster returns a cluster by its managed object id, nil if there is none; it is c's own.
func (c *Center) Cluster(id string) *CenterCluster {
	for i := range c.Clusters {
		if c.Clusters[i].ID == id {
			return &c.Clusters[i]
		}
	}
	return nil
}

func (c Center) key() string      { return c.ID }
func (c Center) unique() []string { return []string{"center/" + c.Name} }
func (c Center) format() int      { return c.Format }
func (c Center) rev() int64       { return c.Rev }
func (c Center) clone(rev int64) Center {
	c.Rev = rev
	c.Secret, c.Warnings, c.Clusters = slices.Clone(c.Secret), slices.Clone(c.Warnings), slices.Clone(c.Clusters)
	for i := range c.Clusters {
		c.Clusters[i].CHAPSecret, c.Clusters[i].MutualSecret = slices.Clone(c.Clusters[i].CHAPSecret), slices.Clone(c.Clusters[i].MutualSecret)
	}
	return c
}

// Datastore is a VMFS datastore on a vDisk.
type Datastore struct {
	Format      int       `json:"format"`
	ID          string    `json:"id"` // UUID
	Name        string    `json:"name"`
	Center      string    `json:"center"`  // id
	Cluster     string    `json:"cluster"` // managed object id
	ClusterName string    `json:"clusterName"`
	VPool       string    `json:"vpool"`           // id
	VDisk       string    `json:"vdisk,omitempty"` // id; empty: not made yet
	Size        int64     `json:"size"`            // of the vDisk as last asked for, bytes
	Volume      string    `json:"volume,omitempty"`
	State       State     `json:"state"` // creating, present or deleting
	Node        string    `json:"node"`  // id of the node that works on it
	Created     time.Time `json:"created"`
	// Job is what is being done; nil: nothing. It goes on after a restart.
	Job *DatastoreJob `json:"job,omitempty"`
	// Marked is what it carries at the vCenter, as it was last set; Warnings tell what could
	// not be set.
	Marked   string   `json:"marked,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Snapshots tells how the newest snapshots with virtual machines went, oldest first, up to
	// MaxDatastoreSnapshots.
	Snapshots []DatastoreSnapshot `json:"snapshots,omitempty"`
	// RDM is set of what is no datastore, but the vDisk as a disk of a virtual machine: jobs and
	// hosts are the same.
	RDM *RDM `json:"rdm,omitempty"`

	Rev int64 `json:"-"`
}

// RDM is the virtual machine that has a vDisk as its disk.
type RDM struct {
	Machine     string `json:"machine"` // managed object id
	MachineName string `json:"machineName"`
	Mode        string `json:"mode"`             // physical or virtual
	Shared      bool   `json:"shared,omitempty"` // others may have it, too
}

// MaxDatastoreSnapshots bounds what is kept of snapshots of a datastore.
const MaxDatastoreSnapshots = 4

// DatastoreSnapshot is how a snapshot of a datastore went.
type DatastoreSnapshot struct {
	Name     string            `json:"name"` // of the vDisk's snapshot
	Time     time.Time         `json:"time"`
	Failed   string            `json:"failed,omitempty"` // why there is none
	Machines []SnapshotMachine `json:"machines,omitempty"`
	Group    []string          `json:"group,omitempty"` // names of all datastores of it; none: it alone
}

// SnapshotMachine is a virtual machine in a snapshot of its datastore.
type SnapshotMachine struct {
	ID   string `json:"id"` // managed object id
	Name string `json:"name"`
	// Quiesced: its guest wrote out what it held before. One that was off, or left the
	// datastore before, is quiesced.
	Quiesced bool   `json:"quiesced,omitempty"`
	Error    string `json:"error,omitempty"` // why it is not
	// Of a job: Made counts snapshots of it that are there, Asked those that its vCenter was
	// asked for and may have made, or make still.
	Made  int `json:"made,omitempty"`
	Asked int `json:"asked,omitempty"`
}

// Consistent tells whether every virtual machine is as it wants to be found.
func (s DatastoreSnapshot) Consistent() bool {
	return s.Failed == "" && !slices.ContainsFunc(s.Machines, func(m SnapshotMachine) bool { return !m.Quiesced })
}

// JobKind is what a job does with a datastore.
type JobKind string

// Kinds.
const (
	JobCreate JobKind = "create"
	JobImport JobKind = "import" // of a volume that is on a vDisk already, a clone
	JobAttach JobKind = "attach" // to hosts that came since
	JobExpand JobKind = "expand"
	JobRename JobKind = "rename"
	JobRemove JobKind = "remove"
	JobMark   JobKind = "mark" // with what it is on, at the vCenter
	// JobQuiesce makes a snapshot of the vDisk for which the guests of the virtual machines
	// write out what they hold.
	JobQuiesce JobKind = "snapshot"
	// JobMap gives a virtual machine the vDisk as its disk, JobUnmap takes it.
	JobMap   JobKind = "map"
	JobUnmap JobKind = "unmap"
)

// DatastoreJob is work on a datastore, in steps that may be repeated.
type DatastoreJob struct {
	Kind    JobKind   `json:"kind"`
	Step    string    `json:"step"`           // that is next, or being done
	Name    string    `json:"name,omitempty"` // rename, snapshot
	Size    int64     `json:"size,omitempty"` // expand, bytes
	Keep    bool      `json:"keep,omitempty"` // remove: the vDisk stays
	Started time.Time `json:"started"`
	// Tries counts failures of the step; Error and Hint are of the newest.
	Tries int    `json:"tries,omitempty"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
	// Notes tell what was left out, such as hosts that were away.
	Notes []string `json:"notes,omitempty"`
	// Require: without a virtual machine that is quiesced there is no snapshot.
	Require bool `json:"require,omitempty"`
	// With are the ids of other datastores whose vDisks have the snapshot at the same moment.
	With []string `json:"with,omitempty"`
	// WithinMs is how long after the begin of the job the snapshot is made; 0: the usual time.
	WithinMs int64 `json:"withinMillis,omitempty"`
	// Machines and Failed are as in DatastoreSnapshot, as far as the job got.
	Machines []SnapshotMachine `json:"machines,omitempty"`
	Failed   string            `json:"failed,omitempty"`
	// CallMs is how long a call may take that the node has sent to the vCenter for the step, and
	// that does harm when it is carried out late; 0: there is none.
	CallMs int64 `json:"callMillis,omitempty"`
	// From is from when a node that took the job over, or was given it, goes on with it: the
	// calls of the former one are over then. Who takes it over writes it by its own clock.
	From time.Time `json:"from,omitzero"`
	// Quiet is since when nothing is seen of snapshots that virtual machines were asked for.
	Quiet time.Time `json:"quiet,omitzero"`
}

func (d Datastore) key() string { return d.ID }
func (d Datastore) unique() []string {
	if d.RDM != nil {
		return []string{"rdm/" + d.Name}
	}
	keys := []string{"datastore/" + d.Name}
	if d.Job != nil && d.Job.Kind == JobRename && d.Job.Name != d.Name {
		keys = append(keys, "datastore/"+d.Job.Name)
	}
	return keys
}
func (d Datastore) format() int { return d.Format }
func (d Datastore) rev() int64  { return d.Rev }
func (d Datastore) clone(rev int64) Datastore {
	d.Rev = rev
	if d.Job != nil {
		j := *d.Job
		j.Notes, j.Machines, j.With = slices.Clone(j.Notes), slices.Clone(j.Machines), slices.Clone(j.With)
		d.Job = &j
	}
	if d.RDM != nil {
		r := *d.RDM
		d.RDM = &r
	}
	d.Warnings, d.Snapshots = slices.Clone(d.Warnings), slices.Clone(d.Snapshots)
	for i := range d.Snapshots {
		d.Snapshots[i].Machines, d.Snapshots[i].Group = slices.Clone(d.Snapshots[i].Machines), slices.Clone(d.Snapshots[i].Group)
	}
	return d
}

// CreateCenter stores a new vCenter; ErrExists if its name is taken.
func (s *Store) CreateCenter(ctx context.Context, c Center) (Center, error) {
	c.Format = Format
	return s.centers.insert(ctx, c, nil)
}

// FindCenter returns a vCenter by id or name.
func (s *Store) FindCenter(ref string) (Center, bool) {
	if c, ok := s.centers.get(ref); ok {
		return c, true
	}
	return s.centers.lookup("center/" + ref)
}

// Centers returns the vCenters in no particular order.
func (s *Store) Centers() []Center { return s.centers.all(nil) }

// UpdateCenter changes a vCenter through fn; an error of fn is returned and nothing changes.
func (s *Store) UpdateCenter(ctx context.Context, id string, fn func(*Center) error) (Center, error) {
	return s.centers.update(ctx, id, func(c *Center) error {
		c.Format = Format
		return fn(c)
	})
}

// DeleteCenter removes the record of a vCenter. Absent is no error.
func (s *Store) DeleteCenter(ctx context.Context, id string) error {
	return s.centers.remove(ctx, id, nil)
}

// CreateDatastore stores a new datastore; ErrExists if its name is taken.
func (s *Store) CreateDatastore(ctx context.Context, d Datastore) (Datastore, error) {
	d.Format = Format
	return s.datastores.insert(ctx, d, nil)
}

// FindDatastore returns a datastore by id or name.
func (s *Store) FindDatastore(ref string) (Datastore, bool) {
	if d, ok := s.datastores.get(ref); ok {
		return d, true
	}
	d, ok := s.datastores.lookup("datastore/" + ref)
	return d, ok && d.Name == ref // else it is being renamed to that
}

// FindRDM returns a disk of a virtual machine by id or name.
func (s *Store) FindRDM(ref string) (Datastore, bool) {
	d, ok := s.datastores.get(ref)
	if !ok {
		d, ok = s.datastores.lookup("rdm/" + ref)
	}
	return d, ok && d.RDM != nil
}

// Datastores returns the datastores, and RDM disks, for which keep (nil: all) holds, in no particular order.
func (s *Store) Datastores(keep func(Datastore) bool) []Datastore { return s.datastores.all(keep) }

// UpdateDatastore changes a datastore through fn; an error of fn is returned and nothing
// changes. ErrExists: its name, or the one that it is to have, belongs to another.
func (s *Store) UpdateDatastore(ctx context.Context, id string, fn func(*Datastore) error) (Datastore, error) {
	return s.datastores.update(ctx, id, func(d *Datastore) error {
		d.Format = Format
		return fn(d)
	})
}

// GiveDatastore is UpdateDatastore that makes a datastore the node's named to, if cmps hold
// too; ErrConflict: one does not.
func (s *Store) GiveDatastore(ctx context.Context, id, to string, cmps []kv.Compare, fn func(*Datastore) error) (Datastore, error) {
	return s.datastores.updateIf(ctx, id, cmps, func(d *Datastore) error {
		d.Format = Format
		if err := fn(d); err != nil {
			return err
		}
		d.Node = to
		return nil
	})
}

// DeleteDatastore removes the record of a datastore. Absent is no error.
func (s *Store) DeleteDatastore(ctx context.Context, id string) error {
	return s.datastores.remove(ctx, id, nil)
}
