package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
)

// registryEvery is how often the members of the registry's etcd are asked how they are.
const registryEvery = 15 * time.Second

// watchRegistry asks the members of etcd how they are, until ctx ends; nothing when the
// registry is in none.
func (n *node) watchRegistry(ctx context.Context) {
	s, ok := n.kv.(interface {
		MembersAt(ctx context.Context, endpoints []string) []etcd.MemberState
		List(ctx context.Context) ([]etcd.Member, error)
	})
	if !ok {
		return
	}
	again := time.NewTicker(cmp.Or(n.opt.askRegistry, registryEvery))
	defer again.Stop()
	away := false
	for {
		var out []observe.RegistryMember
		for _, m := range s.MembersAt(ctx, n.registryURLs()) {
			o := observe.RegistryMember{Endpoint: m.Endpoint, Leads: m.Leads, Size: m.Size, InUse: m.InUse, Quota: m.Quota, Alarms: m.Alarms}
			if m.Err != nil {
				o.Err = m.Err.Error()
			}
			out = append(out, o)
		}
		if n.cfg.Registry.own() {
			out = n.named(ctx, s.List, out)
		}
		if ctx.Err() != nil {
			return
		}
		n.registry.Store(&out)
		why := observe.NoneAnswers(out)
		switch {
		case why != "" && !away:
			n.tell(event.RegistryAway, "registry", "reason", why)
		case why == "" && away:
			n.tell(event.RegistryBack, "registry")
		}
		away = why != ""
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// named says which nodes run the members, and adds those that are no endpoints yet.
func (n *node) named(ctx context.Context, list func(context.Context) ([]etcd.Member, error), out []observe.RegistryMember) []observe.RegistryMember {
	ctx, cancel := context.WithTimeout(ctx, tendWait)
	defer cancel()
	all, err := list(ctx)
	if err != nil { // what they said themselves tells
		return out
	}
	for _, m := range all {
		i := slices.IndexFunc(out, func(o observe.RegistryMember) bool { return o.Endpoint == m.Client })
		if i < 0 {
			i = len(out)
			out = append(out, observe.RegistryMember{Endpoint: cmp.Or(m.Client, m.Peer)})
		}
		out[i].Node, out[i].Learner = m.Name, m.Learner
	}
	return out
}

// registryMembers returns what they said last.
func (n *node) registryMembers() []observe.RegistryMember {
	if out := n.registry.Load(); out != nil {
		return *out
	}
	return nil
}
