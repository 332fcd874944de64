package esxsim

import (
	"fmt"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Answering has hook hear of each request for properties when its answer is ready, which is sent
// when hook returns: what it tells is as old then. nil ends that.
func (v *VCenter) Answering(hook func(Call)) {
	v.f.hmu.Lock()
	defer v.f.hmu.Unlock()
	v.f.answering = hook
}

// lateCollector stands for the property collector of a session, for one request.
type lateCollector struct {
	self types.ManagedObjectReference
	pc   *simulator.PropertyCollector
	f    *fabric
	call Call
	hook func(Call)
}

// Reference implements mo.Reference.
func (c *lateCollector) Reference() types.ManagedObjectReference { return c.self }

// RetrieveProperties implements the method of the API.
func (c *lateCollector) RetrieveProperties(ctx *simulator.Context, r *types.RetrieveProperties) soap.HasFault {
	res := c.pc.RetrieveProperties(ctx, r)
	c.answered(ctx)
	return res
}

// RetrievePropertiesEx implements the method of the API.
func (c *lateCollector) RetrievePropertiesEx(ctx *simulator.Context, r *types.RetrievePropertiesEx) soap.HasFault {
	res := c.pc.RetrievePropertiesEx(ctx, r)
	c.answered(ctx)
	return res
}

func (c *lateCollector) answered(ctx *simulator.Context) {
	c.hook(c.call)
	c.f.reg.Remove(ctx, c.self)
}

// late has a request for properties go to a lateCollector, if a test wants to hear of answers.
func (f *fabric) late(ctx *simulator.Context, m *simulator.Method) {
	switch m.Body.(type) {
	case *types.RetrieveProperties, *types.RetrievePropertiesEx:
	default:
		return
	}
	f.hmu.Lock()
	hook := f.answering
	f.lates++
	self := types.ManagedObjectReference{Type: "LateCollector", Value: fmt.Sprintf("late-%d", f.lates)}
	f.hmu.Unlock()
	if hook == nil || ctx.Session == nil {
		return
	}
	pc, ok := ctx.Session.Get(m.This).(*simulator.PropertyCollector)
	if !ok {
		return
	}
	f.reg.Put(&lateCollector{self: self, pc: pc, f: f, call: Call{Method: m.Name, Object: m.This, Body: m.Body}, hook: hook})
	m.This = self
}
