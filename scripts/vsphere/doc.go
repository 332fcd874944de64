// Package vsphere tests ovgate against a vCenter with the real binary: integrations/vsphere/esxsim
// as the vCenter, whose hosts log in to the node's iSCSI target. scripts/vsphere/vcenter is the
// same as a process.
package vsphere
