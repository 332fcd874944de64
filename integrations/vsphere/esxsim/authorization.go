package esxsim

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// SetLacking has users lack privileges, as they are told when they ask. What such a user does
// is refused by Before, if a test wants that.
func (v *VCenter) SetLacking(privileges ...string) {
	v.f.hmu.Lock()
	defer v.f.hmu.Unlock()
	v.f.lacking = privileges
}

// authorization is the AuthorizationManager.
type authorization struct {
	*simulator.AuthorizationManager
	f *fabric
}

func (a *authorization) HasPrivilegeOnEntities(r *types.HasPrivilegeOnEntities) soap.HasFault {
	res := a.AuthorizationManager.HasPrivilegeOnEntities(r)
	b, ok := res.(*methods.HasPrivilegeOnEntitiesBody)
	if !ok || b.Res == nil {
		return res
	}
	a.f.hmu.Lock()
	defer a.f.hmu.Unlock()
	for _, e := range b.Res.Returnval {
		for i := range e.PrivAvailability {
			e.PrivAvailability[i].IsGranted = !slices.Contains(a.f.lacking, e.PrivAvailability[i].PrivId)
		}
	}
	return res
}
