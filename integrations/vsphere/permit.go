package vsphere

import (
	"context"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
)

// Permit is asked before a request that changes something at the vCenter or a host, which
// takes up to limit. With an error, ErrNotOurs for example, nothing is sent. still is asked
// again in the moment in which the request goes out: the process may have stood still since,
// or connecting have taken its time. It must not block.
type Permit func(ctx context.Context, limit time.Duration) (still func() error, err error)

// looks are how the methods begin that change nothing, or only what a host knows of its disks.
// All others need a permit.
var looks = []string{
	"Retrieve", "ContinueRetrieve", "Query", "HasPrivilege", "CreateContainerView", "DestroyView", "CreateFilter", "DestroyPropertyFilter",
	"CreatePropertyCollector", "DestroyPropertyCollector", "WaitForUpdates", "CancelWaitForUpdates", "Rescan", "Refresh", "Login", "Logout", "GetAlarm", "FindExtension",
}

// changes tells whether a request needs a permit.
func changes(req soap.HasFault) bool {
	name := reflect.TypeOf(req).Elem().Name() // as methods.RescanVmfsBody
	for _, l := range looks {
		if strings.HasPrefix(name, l) {
			return false
		}
	}
	return true
}

// stillKey is where a request's context has what is asked when it goes out.
type stillKey struct{}

// permit asks for the permit of a request, and returns the context to send it with.
func (c *Center) permit(ctx context.Context, req soap.HasFault, limit time.Duration) (context.Context, error) {
	if c.opt.Permit == nil || !changes(req) {
		return ctx, nil
	}
	still, err := c.opt.Permit(ctx, limit)
	if err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, stillKey{}, still), nil
}

// permitted is a request that goes out: without a permit it has no content.
type permitted struct {
	io.ReadCloser
	still func() error
}

func (p *permitted) Read(b []byte) (int, error) {
	if err := p.still(); err != nil {
		return 0, err
	}
	return p.ReadCloser.Read(b)
}
