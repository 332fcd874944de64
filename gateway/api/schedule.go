package api

import (
	"context"
	"net/http"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
)

// scheduleOf shows when jobs run.
func (s *Server) scheduleOf(in control.ScheduleScope) (Schedule, error) {
	of, jobs, err := s.opt.Control.Schedule(in)
	out := Schedule{Of: of, Jobs: []ScheduledJob{}}
	for _, j := range jobs {
		row := ScheduledJob{Job: string(j.Name), Source: ScheduleSource(j.Source), Enabled: j.Enabled, Cron: j.Cron, Zone: j.Zone, Days: j.Days, Weeks: j.Weeks, SkipUnchanged: j.SkipUnchanged,
			NextSlot: when(j.Slot), NextAt: when(j.Next), Running: j.Running, Runs: []ScheduledRun{}}
		for _, r := range j.Runs {
			row.Runs = append(row.Runs, ScheduledRun{Slot: when(r.Slot), Started: r.Started.UTC(), Ended: r.Ended.UTC(), Result: ScheduledRunResult(r.Result), Text: r.Text})
		}
		out.Jobs = append(out.Jobs, row)
	}
	return out, err
}

// scheduleScope is whose schedule a request means, for a caller with a role there; a change of
// the cluster's or a vPool's needs role manage.
func (s *Server) scheduleScope(ctx context.Context, need auth.Role, vpool, vdisk *string) (in control.ScheduleScope, err error) {
	if need != auth.RoleRead && value(vdisk) == "" {
		need = auth.RoleManage
	}
	if value(vpool) != "" {
		if in.VPool, err = s.poolFor(ctx, *vpool, "", need); err != nil {
			return in, err
		}
	}
	if value(vdisk) != "" {
		if in.VDisk, err = s.diskFor(ctx, *vdisk, need); err != nil {
			return in, err
		}
	}
	if in == (control.ScheduleScope{}) && !callerOf(ctx).Role.Allows(need) {
		return in, refuse(http.StatusForbidden, "forbidden", "schedule", "ask somebody with that role, or name a vPool or vDisk", "the schedule of the cluster needs role %s", need)
	}
	return in, nil
}

// ListSchedules lists what is said about jobs.
func (s *Server) ListSchedules(ctx context.Context, r ListSchedulesRequestObject) (ListSchedulesResponseObject, error) {
	seen := s.sight(ctx)
	var rows []ScheduleEntry
	for _, j := range s.opt.Control.Sayings() {
		if !seen.named(s, "vpool "+j.VPool) || !matches(r.Params.Q, j.VPool+"/"+j.VDisk, nil) {
			continue
		}
		rows = append(rows, ScheduleEntry{VPool: j.VPool, VDisk: j.VDisk, Job: string(j.Job), Source: ScheduleSource(j.Source), Enabled: j.Enabled, Cron: j.Cron, Zone: j.Zone, Days: j.Days, Weeks: j.Weeks, SkipUnchanged: j.SkipUnchanged})
	}
	keys := func(e ScheduleEntry) model.Keys { return model.Keys{ID: e.VPool + "/" + e.VDisk + "/" + e.Job} }
	items, next, err := page(rows, keys, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListSchedules200JSONResponse{items, next}, err
}

// GetSchedule shows when jobs run, and how they went.
func (s *Server) GetSchedule(ctx context.Context, r GetScheduleRequestObject) (GetScheduleResponseObject, error) {
	in, err := s.scheduleScope(ctx, auth.RoleRead, r.Params.VPool, r.Params.VDisk)
	if err != nil {
		return nil, err
	}
	if in.VDisk != "" {
		if err := s.askOwner(ctx, in.VDisk); err != nil {
			return nil, err // it knows what runs
		}
	}
	out, err := s.scheduleOf(in)
	return GetSchedule200JSONResponse(out), err
}

// SetSchedule says when a job runs.
func (s *Server) SetSchedule(ctx context.Context, r SetScheduleRequestObject) (SetScheduleResponseObject, error) {
	in, err := s.scheduleScope(ctx, auth.RoleWrite, r.Params.VPool, r.Params.VDisk)
	if err != nil {
		return nil, err
	}
	b := r.Body
	if err := s.opt.Control.SetJob(ctx, in, r.Job, control.JobPatch{Enabled: b.Enabled, Cron: b.Cron, Zone: b.Zone, Days: b.Days, Weeks: b.Weeks, SkipUnchanged: b.SkipUnchanged}); err != nil {
		return nil, err
	}
	out, err := s.scheduleOf(in)
	return SetSchedule200JSONResponse(out), err
}

// ResetSchedule has a job inherited.
func (s *Server) ResetSchedule(ctx context.Context, r ResetScheduleRequestObject) (ResetScheduleResponseObject, error) {
	in, err := s.scheduleScope(ctx, auth.RoleWrite, r.Params.VPool, r.Params.VDisk)
	if err != nil {
		return nil, err
	}
	if err := s.opt.Control.ResetJob(ctx, in, r.Job); err != nil {
		return nil, err
	}
	return ResetSchedule204Response{}, nil
}

// RunSchedule runs a job of a vDisk now.
func (s *Server) RunSchedule(ctx context.Context, r RunScheduleRequestObject) (RunScheduleResponseObject, error) {
	vdisk, err := s.diskFor(ctx, r.Params.VDisk, auth.RoleWrite)
	if err != nil {
		return nil, err
	}
	if err := s.opt.Control.RunJob(ctx, vdisk, r.Job); err != nil {
		return nil, err
	}
	out, err := s.scheduleOf(control.ScheduleScope{VDisk: vdisk})
	return RunSchedule202JSONResponse(out), err
}
