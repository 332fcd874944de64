package control

import "github.com/openvstorage/ovgate/gateway/model"

// underDatastore refuses what takes a vDisk away from a datastore on it: hosts would lose all
// paths to it at once, with virtual machines running. Removing the datastore does that in the
// right order.
func (c *Controller) underDatastore(v model.VDisk) error {
	for _, d := range c.model.Datastores(func(d model.Datastore) bool { return d.VDisk == v.ID && d.State != model.StateDeleting }) {
		if d.RDM != nil {
			return &Error{Code: CodeInUse, Object: vdiskObject(v.Name), Message: "it is a disk of virtual machine " + d.RDM.MachineName, Hint: "take it from that first: ovgate vsphere rdm detach " + d.Name}
		}
		return &Error{Code: CodeInUse, Object: vdiskObject(v.Name), Message: "datastore " + d.Name + " is on it", Hint: "remove that first: ovgate vsphere datastore remove " + d.Name}
	}
	return nil
}
