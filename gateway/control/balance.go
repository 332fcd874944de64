package control

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/model"
)

// Handoff is one vDisk that goes from node to node, by their ids.
type Handoff struct {
	VDisk    model.VDisk
	From, To string
}

// Rebalance spreads the vDisks over the nodes that are up and take some, so that no two of
// them differ by more than one, as far as the vDisks can move: with as few hand-overs as that
// takes. It returns them; with dry nothing is changed. They run in the background, each on the
// node that has the vDisk. What cannot be decided for one is in the error, and the others go
// on.
func (c *Controller) Rebalance(ctx context.Context, dry bool) ([]Handoff, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	living, err := c.living(ctx)
	if err != nil {
		return nil, &Error{Code: CodeBackend, Object: "cluster", Message: "the registry does not say which nodes are up", Hint: "bring the registry back", Err: err}
	}
	takes := map[string]bool{}
	for _, n := range c.model.Nodes() {
		takes[n.ID] = living[n.ID] && !n.Draining && !n.Leaving
	}
	movable := func(v model.VDisk) bool {
		return v.State == model.StatePresent && v.Handover == nil && c.checkHandOver(v) == nil
	}
	plan := balance(c.model.VDisks(nil), takes, movable)
	if dry {
		return plan, nil
	}
	var errs []error
	decided := plan[:0]
	for _, h := range plan {
		out, err := c.model.UpdateVDisk(ctx, h.VDisk.ID, func(v *model.VDisk) error {
			if v.Node != h.From || !movable(*v) {
				return errMoved
			}
			v.Handover = &model.Handover{To: h.To}
			return nil
		})
		if err != nil {
			if !errors.Is(err, errMoved) && !errors.Is(err, model.ErrNotFound) {
				errs = append(errs, explain(vdiskObject(h.VDisk.Name), err))
			}
			continue
		}
		h.VDisk = out
		decided = append(decided, h)
		c.log.Info("vDisk is handed over to spread the load", "vdisk", out.Name, "id", out.ID, "from", c.NodeName(h.From), "to", c.NodeName(h.To))
		if c.mine(out) {
			c.schedule(ref{"vdisk", out.ID}, 0)
		}
	}
	return decided, errors.Join(errs...)
}

// errMoved: somebody else changed the vDisk since the plan was made.
var errMoved = errors.New("control: the vDisk is not as it was planned for")

// balance plans hand-overs between the nodes that take vDisks. One that is being handed over
// counts where it goes.
func balance(all []model.VDisk, takes map[string]bool, movable func(model.VDisk) bool) []Handoff {
	load, can := map[string]int{}, map[string][]model.VDisk{}
	var nodes []string
	for n, ok := range takes {
		if ok {
			nodes = append(nodes, n)
		}
	}
	slices.Sort(nodes)
	for _, v := range all {
		at := v.Node
		if v.Handover != nil && v.Handover.Failed == "" {
			at = v.Handover.To
		}
		switch v.State {
		case model.StateTrashed, model.StateDeleting:
			continue // nobody uses it
		}
		load[at]++
		if takes[v.Node] && movable(v) {
			can[v.Node] = append(can[v.Node], v)
		}
	}
	for _, vs := range can {
		slices.SortFunc(vs, func(a, b model.VDisk) int { return strings.Compare(a.ID, b.ID) })
	}
	var plan []Handoff
	for {
		from, to := "", ""
		for _, n := range nodes {
			if to == "" || load[n] < load[to] {
				to = n
			}
			if len(can[n]) > 0 && (from == "" || load[n] > load[from]) {
				from = n
			}
		}
		if from == "" || load[from]-load[to] <= 1 {
			return plan
		}
		plan = append(plan, Handoff{can[from][0], from, to})
		can[from] = can[from][1:]
		load[from]--
		load[to]++
	}
}
