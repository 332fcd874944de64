package control

import "github.com/openvstorage/ovgate/gateway/model"

// underDatastore refuses what takes a vDisk away from a datastore on it, or from a virtual machine
// whose disk it is: hosts would lose all paths to it at once, with virtual machines running.
// Removing the datastore, or the disk, does that in the right order.
func (c *Controller) underDatastore(v model.VDisk) error {
	on := c.model.Datastores(func(d model.Datastore) bool { return d.VDisk == v.ID && d.State != model.StateDeleting })
	if len(on) == 0 {
		return nil
	}
	d := on[0]
	if d.RDM != nil {
		return &Error{Code: CodeInUse, Object: vdiskObject(v.Name), Message: "it is a disk of virtual machine " + d.RDM.MachineName, Hint: "take it from that first: ovgate vsphere rdm detach " + d.Name}
	}
	return &Error{Code: CodeInUse, Object: vdiskObject(v.Name), Message: "datastore " + d.Name + " is on it", Hint: "remove that first: ovgate vsphere datastore remove " + d.Name}
}
