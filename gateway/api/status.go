package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
)

// GetVersion shows the node's version and its formats.
func (s *Server) GetVersion(context.Context, GetVersionRequestObject) (GetVersionResponseObject, error) {
	return GetVersion200JSONResponse(s.opt.Version), nil
}

// GetStatus shows health, capacity and performance.
func (s *Server) GetStatus(ctx context.Context, _ GetStatusRequestObject) (GetStatusResponseObject, error) {
	out := GetStatus200JSONResponse{
		Cluster: s.opt.Model.Cluster().ID,
		Node:    Node{ID: s.opt.NodeID, Name: s.opt.NodeName}, Version: s.opt.Version.Version, Started: s.opt.Started.UTC(),
		Portals: s.portals(), ObservedAt: s.clock.Now().UTC(),
	}
	seen := s.sight(ctx)
	health, trends := s.opt.Health(), s.opt.Trends()
	health.Causes = slices.DeleteFunc(slices.Clone(health.Causes), func(c observe.Cause) bool { return !seen.named(s, c.Object) })
	trends = slices.DeleteFunc(slices.Clone(trends), func(t observe.Trend) bool { return !seen.named(s, t.Object) })
	out.Health, out.Filling, out.Performance = healthOf(health), fillings(trends), performanceOf(s.seenPerformance(seen))
	sums := s.sums()
	devices := map[[2]int64]bool{}
	for _, v := range s.opt.Model.VPools() {
		if v.State == model.StateDeleting || !seen.vpool(v.ID) {
			continue
		}
		out.Counts.Vpools++
		st := s.opt.Control.PoolStatus(v.ID)
		// Two vPools on one disk report the same space: it counts once.
		if dev := [2]int64{st.Usage.Total, st.Usage.Free}; !devices[dev] {
			devices[dev] = true
			out.Capacity.Total += st.Usage.Total
			out.Capacity.Free += st.Usage.Free
		}
	}
	for id, p := range sums {
		if !seen.vpool(id) {
			continue
		}
		out.Counts.Vdisks += p.vdisks
		out.Counts.Published += p.published
		dtl := &out.Counts.Dtl
		dtl.Ok, dtl.Catchup, dtl.Degraded, dtl.Off = dtl.Ok+p.dtl.Ok, dtl.Catchup+p.dtl.Catchup, dtl.Degraded+p.dtl.Degraded, dtl.Off+p.dtl.Off
		out.Capacity.Provisioned += p.provisioned
		out.Capacity.Stored += p.stored
		out.Capacity.Mapped += p.mapped
		out.Capacity.JournalUsed += p.journalUsed
		out.Capacity.JournalQuota += p.journalQuota
	}
	out.Counts.Sessions = len(s.sessions(seen))
	return out, nil
}

// seenPerformance is what this node does, or of it what the vPools do that can be read.
func (s *Server) seenPerformance(seen *sight) observe.Performance {
	if seen == nil {
		return s.opt.Sampler.Present(observe.Node).Performance
	}
	var out observe.Performance
	for _, v := range s.opt.Model.VPools() {
		if !seen.vpool(v.ID) {
			continue
		}
		p := s.opt.Sampler.Present(v.ID).Performance
		out.ReadIOPS, out.WriteIOPS = out.ReadIOPS+p.ReadIOPS, out.WriteIOPS+p.WriteIOPS
		out.ReadBytesPerSecond, out.WriteBytesPerSecond = out.ReadBytesPerSecond+p.ReadBytesPerSecond, out.WriteBytesPerSecond+p.WriteBytesPerSecond
		out.ReadP50us, out.ReadP99us = max(out.ReadP50us, p.ReadP50us), max(out.ReadP99us, p.ReadP99us)
		out.WriteP50us, out.WriteP99us = max(out.WriteP50us, p.WriteP50us), max(out.WriteP99us, p.WriteP99us)
	}
	return out
}

// fillingsMost is how many places a status tells of: the first are those that need somebody.
const fillingsMost = 16

func fillings(trends []observe.Trend) []Filling {
	out := make([]Filling, 0, min(len(trends), fillingsMost))
	for _, t := range trends[:min(len(trends), fillingsMost)] {
		f := Filling{Object: t.Object, What: t.What, Total: t.Total, Free: t.Free, Known: t.Known}
		if t.To80 != observe.Never {
			f.To80Ms = new(t.To80.Milliseconds())
		}
		if t.To100 != observe.Never {
			f.To100Ms = new(t.To100.Milliseconds())
		}
		out = append(out, f)
	}
	return out
}

func healthOf(h observe.Health) Health {
	out := Health{State: HealthState(h.State()), Causes: []HealthCause{}}
	for _, c := range h.Causes {
		out.Causes = append(out.Causes, HealthCause{State: HealthState(c.State), Code: c.Code, Text: c.Text, Object: c.Object, Hint: c.Hint})
	}
	return out
}

// healthz answers probes: 200 while the node serves, also with warnings; 503
// when something is wrong that needs somebody. It names no object, because
// anybody may ask.
func (s *Server) healthz(c echo.Context) error {
	h := s.opt.Health()
	status := http.StatusOK
	if h.State() == observe.Bad {
		status = http.StatusServiceUnavailable
	}
	text := fmt.Sprintf("%s\n", h.State())
	for _, cause := range h.Causes {
		text += cause.Code + "\n"
	}
	return c.String(status, text)
}
