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

// scheduleScope is whose schedule a request means; a change of the cluster's or a vPool's
// needs role manage.
func scheduleScope(ctx context.Context, change bool, vpool, vdisk *string) (control.ScheduleScope, error) {
	in := control.ScheduleScope{VPool: value(vpool), VDisk: value(vdisk)}
	if change && in.VDisk == "" && !callerOf(ctx).Role.Allows(auth.RoleManage) {
		return in, refuse(http.StatusForbidden, "forbidden", "schedule", "ask somebody with role manage, or set it for a vDisk", "the schedule of the cluster or of a vPool needs role manage")
	}
	return in, nil
}

// ListSchedules lists what is said about jobs.
func (s *Server) ListSchedules(_ context.Context, r ListSchedulesRequestObject) (ListSchedulesResponseObject, error) {
	var rows []ScheduleEntry
	for _, j := range s.opt.Control.Sayings() {
		if !matches(r.Params.Q, j.VPool+"/"+j.VDisk, nil) {
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
	if r.Params.VDisk != nil {
		if err := s.askOwner(ctx, *r.Params.VDisk); err != nil {
			return nil, err // it knows what runs
		}
	}
	in, err := scheduleScope(ctx, false, r.Params.VPool, r.Params.VDisk)
	if err != nil {
		return nil, err
	}
	out, err := s.scheduleOf(in)
	return GetSchedule200JSONResponse(out), err
}

// SetSchedule says when a job runs.
func (s *Server) SetSchedule(ctx context.Context, r SetScheduleRequestObject) (SetScheduleResponseObject, error) {
	in, err := scheduleScope(ctx, true, r.Params.VPool, r.Params.VDisk)
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
	in, err := scheduleScope(ctx, true, r.Params.VPool, r.Params.VDisk)
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
	if err := s.opt.Control.RunJob(ctx, r.Params.VDisk, r.Job); err != nil {
		return nil, err
	}
	out, err := s.scheduleOf(control.ScheduleScope{VDisk: r.Params.VDisk})
	return RunSchedule202JSONResponse(out), err
}
