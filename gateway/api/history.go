package api

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/series"
)

// defaultPoints are those of an answer with history, defaultSpan is the time of them.
const (
	defaultPoints = 300
	defaultSpan   = time.Hour
)

const (
	// loadTicks is how often it is looked at how busy the machine is, in ticks.
	loadTicks = 10
	// storedTicks is how often it is added up what vPools have on their backends, in ticks: it
	// takes a look at each vDisk.
	storedTicks = 300
)

// historyFeed is what is told to the history of performance, but for what each second has anew.
type historyFeed struct {
	tick        int
	cpu, memory float64
	stored      map[string]int64 // vPool -> bytes
	stores      storeRates
}

// add passes on what was sampled.
func (h *historyFeed) add(s *Server, now time.Time, active []observe.Named) {
	if s.opt.History == nil {
		return
	}
	if h.tick%loadTicks == 0 && s.opt.Load != nil {
		h.cpu, h.memory = s.opt.Load()
	}
	summed := h.tick%storedTicks == 0
	if summed {
		h.stored = map[string]int64{}
		sums := s.sums()
		for _, p := range s.opt.Model.VPools() {
			if sum := sums[p.ID]; sum != nil && p.State != model.StateDeleting {
				h.stored[p.ID] = sum.stored
			}
		}
	}
	h.tick++
	out := make([]series.Sample, 0, len(active)+len(h.stored))
	told := map[string]bool{}
	for _, a := range active {
		v := series.Sample{Named: a}
		switch {
		case a.ID == observe.Node:
			v.CPU, v.Memory = h.cpu, h.memory
		case a.VPool:
			v.Stored, told[a.ID] = h.stored[a.ID], true
		}
		out = append(out, v)
	}
	for id, bytes := range h.stored {
		if summed && !told[id] { // what is stored changes without commands, too
			out = append(out, series.Sample{Named: observe.Named{ID: id, VPool: true}, Stored: bytes})
		}
	}
	on := map[string]string{}
	for _, p := range s.opt.Model.VPools() {
		if p.Backend.Store != "" {
			on[p.ID] = p.Backend.Store
		}
	}
	for _, v := range h.stores.of(now, on, s.opt.Requests) {
		v.Time = now
		out = append(out, v)
	}
	s.opt.History.Add(now, out)
}

// GetVDiskPerformance shows what a vDisk did.
func (s *Server) GetVDiskPerformance(ctx context.Context, r GetVDiskPerformanceRequestObject) (GetVDiskPerformanceResponseObject, error) {
	v, err := s.opt.Control.FindVDisk(r.VDisk)
	if err == nil {
		err = s.askOwner(ctx, r.VDisk)
	}
	if err != nil {
		return nil, err
	}
	out, err := s.historyOf(ctx, v.ID, v.ID, "vdisk "+v.Name, asked{r.Params.From, r.Params.To, r.Params.Points, r.Params.Latencies})
	return GetVDiskPerformance200JSONResponse(out), err
}

// GetVPoolPerformance shows what the vDisks of a vPool did on a node.
func (s *Server) GetVPoolPerformance(ctx context.Context, r GetVPoolPerformanceRequestObject) (GetVPoolPerformanceResponseObject, error) {
	v, err := s.opt.Control.FindVPool(r.VPool)
	if err != nil {
		return nil, err
	}
	if r.Params.Node != nil {
		n, err := s.findNode(*r.Params.Node)
		if err != nil {
			return nil, err
		}
		if err := s.askNode(ctx, n, history); err != nil {
			return nil, err
		}
	} else if n, ok := s.opt.Model.Node(v.Node); ok { // one in a directory is at one node
		if err := s.askNode(ctx, n, history); err != nil {
			return nil, err
		}
	}
	out, err := s.historyOf(ctx, v.ID, v.ID, "vpool "+v.Name, asked{r.Params.From, r.Params.To, r.Params.Points, r.Params.Latencies})
	return GetVPoolPerformance200JSONResponse(out), err
}

// GetNodePerformance shows what a node did.
func (s *Server) GetNodePerformance(ctx context.Context, r GetNodePerformanceRequestObject) (GetNodePerformanceResponseObject, error) {
	n, err := s.findNode(r.Node)
	if err == nil {
		err = s.askNode(ctx, n, history)
	}
	if err != nil {
		return nil, err
	}
	out, err := s.historyOf(ctx, observe.Node, n.ID, "node "+n.Name, asked{r.Params.From, r.Params.To, r.Params.Points, r.Params.Latencies})
	return GetNodePerformance200JSONResponse(out), err
}

// GetBackendPerformance shows what a registered store was asked by a node.
func (s *Server) GetBackendPerformance(ctx context.Context, r GetBackendPerformanceRequestObject) (GetBackendPerformanceResponseObject, error) {
	v, err := s.opt.Control.FindRemote(r.Backend)
	if err == nil {
		err = s.askNamed(ctx, r.Params.Node, history)
	}
	if err != nil {
		return nil, err
	}
	out, err := s.historyOf(ctx, v.ID, v.ID, "backend "+v.Name, asked{r.Params.From, r.Params.To, r.Params.Points, r.Params.Latencies})
	return GetBackendPerformance200JSONResponse(out), err
}

// history is what messages call the history of performance.
const history = "history of performance"

// askNamed is askNode for a node that the request may name.
func (s *Server) askNamed(ctx context.Context, node *string, what string) error {
	if node == nil {
		return nil
	}
	n, err := s.findNode(clip(*node))
	if err != nil {
		return err
	}
	return s.askNode(ctx, n, what)
}

// askNode is an error that makes the request go to another node, which keeps what is asked for.
func (s *Server) askNode(ctx context.Context, n model.Node, what string) error {
	if n.ID == s.opt.NodeID {
		return nil
	}
	e := &control.Error{Code: control.CodeElsewhere, Object: "node " + n.Name, Message: "its " + what + " is known to that node alone, which does not answer", Hint: "try again when it runs"}
	if passes(ctx) {
		e.Node = n.ID
	}
	return e
}

// asked is what history a request asks for.
type asked struct {
	from, to  *time.Time
	points    *int
	latencies *bool
}

// historyOf answers with the history of an object, by the id that it has in the store.
func (s *Server) historyOf(ctx context.Context, key, id, object string, ask asked) (PerformanceHistory, error) {
	var out PerformanceHistory
	if s.opt.History == nil {
		return out, refuse(http.StatusNotFound, "not_found", object, "", "this node keeps no history of performance")
	}
	now := s.clock.Now().UTC()
	end, n := now, defaultPoints
	if ask.to != nil && ask.to.Before(now) {
		end = ask.to.UTC()
	}
	begin := end.Add(-defaultSpan)
	if ask.from != nil {
		begin = ask.from.UTC()
	}
	if ask.points != nil {
		n = *ask.points
	}
	latencies := ask.latencies != nil && *ask.latencies
	if n < 2 || n > series.MaxPoints {
		return out, refuseField("points", "", "history has 2 to %d points", series.MaxPoints)
	}
	if oldest := now.Add(-series.Longest); begin.Before(oldest) {
		begin = oldest
	}
	// Whole seconds, the last of them included.
	first, last := begin.Unix(), end.Unix()+1
	if last-first < 2 {
		return out, refuseField("from", "name a time before to, and both in the last 90 days", "from has to be before to")
	}
	step, first := series.StepFor(first, last, n)
	all, err := s.opt.History.Query(ctx, key, first, last, step, latencies)
	if err != nil {
		return out, err
	}
	out = PerformanceHistory{
		Object: id, From: time.Unix(first, 0).UTC(), To: time.Unix(last, 0).UTC(), StepMs: step * 1000, Points: make([]HistoryPoint, 0, len(all)), ObservedAt: now,
	}
	if latencies {
		bounds := make([]int64, observe.LatencyBuckets)
		for i := range bounds {
			bounds[i] = 1 << i
		}
		bounds[0] = 0
		out.BucketsUs = &bounds
	}
	for _, p := range all {
		out.Points = append(out.Points, HistoryPoint{
			Latencies: latenciesOf(p.Latencies),
			Time:      time.Unix(p.Time, 0).UTC(), Performance: performanceOf(p.Performance), JournalUsed: p.JournalUsed, Stored: p.Stored, CPU: p.CPU, Memory: p.Memory,
		})
	}
	return out, nil
}

// latenciesOf leaves out buckets behind the last one with commands; nil: nothing is known.
func latenciesOf(l *observe.Latencies) *Latencies {
	if l == nil {
		return nil
	}
	cut := func(h [observe.LatencyBuckets]float64) []float64 {
		n := len(h)
		for n > 0 && h[n-1] == 0 {
			n--
		}
		out := make([]float64, n)
		for i := range out {
			out[i] = math.Round(h[i]*1e6) / 1e6
		}
		return out
	}
	return &Latencies{Reads: cut(l.Reads), Writes: cut(l.Writes)}
}
