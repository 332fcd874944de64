package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/task"
)

// A node that is asked for jobs asks the others for theirs; one that is asked by another node
// answers with its own. What a node said last is kept for when it does not answer.

// maxJobText bounds each text of a job, in bytes.
const maxJobText = 1000

// heard is what a node said of its jobs.
type heard struct {
	jobs []Job
	at   time.Time // zero: never
}

// jobBoard has what other nodes said.
type jobBoard struct {
	mu    sync.Mutex
	nodes map[string]heard // by id
}

// row is a job with what is not shown of it.
type row struct {
	Job
	node string // id of the node that does it; empty: no node alone
	t    task.Task
}

// ListJobs lists what the nodes work on.
func (s *Server) ListJobs(ctx context.Context, r ListJobsRequestObject) (ListJobsResponseObject, error) {
	want, err := s.jobFilter(r.Params)
	if err != nil {
		return nil, err
	}
	all, silent := s.jobs(ctx)
	out := ListJobs200JSONResponse{Silent: silent}
	var rows []Job
	for _, j := range all {
		if j.State == JobStateRunning {
			out.Running++
		}
		if want(j) {
			rows = append(rows, j.Job)
		}
	}
	out.Items, out.Next, err = page(rows, jobKeys, "active", true, r.Params.Cursor, r.Params.Limit)
	return out, err
}

// jobKeys order what has not ended before what has, and the newer before the older.
func jobKeys(j Job) model.Keys {
	const active = 1e16 // microseconds since 1970; in the year 2286
	k := model.Keys{ID: j.ID + " " + j.Node}
	if j.StartedAt != nil {
		k.Number = unix(*j.StartedAt)
	}
	if !task.State(j.State).Ended() {
		k.Number += active
	}
	return k
}

// jobFilter returns which jobs are asked for.
func (s *Server) jobFilter(p ListJobsParams) (func(row) bool, error) {
	words := func(field, text string, known []string) ([]string, error) {
		if text == "" {
			return nil, nil
		}
		list := strings.Split(text, ",")
		for _, w := range list {
			if !slices.Contains(known, w) {
				return nil, refuseField(field, "use some of "+strings.Join(known, ", "), "there is no %s %q", field, clip(w))
			}
		}
		return list, nil
	}
	var known [2][]string
	for _, k := range task.Kinds {
		known[0] = append(known[0], string(k))
	}
	for _, k := range task.States {
		known[1] = append(known[1], string(k))
	}
	kinds, err := words("kind", value(p.Kind), known[0])
	if err != nil {
		return nil, err
	}
	states, err := words("state", value(p.State), known[1])
	if err != nil {
		return nil, err
	}
	node := ""
	if p.Node != nil {
		n, err := s.findNode(clip(*p.Node))
		if err != nil {
			return nil, err
		}
		node = n.ID
	}
	return func(j row) bool {
		return (kinds == nil || slices.Contains(kinds, string(j.Kind))) && (states == nil || slices.Contains(states, string(j.State))) &&
			(node == "" || j.node == node) && (p.Object == nil || *p.Object == j.Object) && matches(p.Q, j.ID+" "+j.What+" "+j.Object, nil)
	}, nil
}

// GetJob shows a job.
func (s *Server) GetJob(ctx context.Context, r GetJobRequestObject) (GetJobResponseObject, error) {
	j, err := s.findJob(ctx, r.Job)
	return GetJob200JSONResponse(j.Job), err
}

// CancelJob has a job ended, by the node that does it.
func (s *Server) CancelJob(ctx context.Context, r CancelJobRequestObject) (CancelJobResponseObject, error) {
	j, err := s.findJob(ctx, r.Job)
	if err != nil {
		return nil, err
	}
	object := "task " + clip(r.Job)
	need := auth.RoleWrite
	if j.t.Kind == task.Drain || j.t.Kind == task.Sweep {
		need = auth.RoleManage
	}
	if err := s.mayCancel(ctx, j, need); err != nil {
		return nil, about(object, "", err)
	}
	if j.node != "" && j.node != s.opt.NodeID {
		e := &control.Error{Code: control.CodeElsewhere, Object: object, Message: "node " + j.Node + " does it", Hint: "ask that node"}
		if passes(ctx) {
			e.Node = j.node
		}
		return nil, e
	}
	if !j.Cancellable {
		return nil, control.NotCancelled(j.t)
	}
	if err := s.opt.Control.CancelTask(ctx, j.t); err != nil {
		return nil, err
	}
	if now, err := s.findJob(ctx, r.Job); err == nil {
		return CancelJob202JSONResponse(now.Job), nil
	}
	j.State, j.Cancellable = JobStateCancelled, false // it was one that nobody does right now
	return CancelJob202JSONResponse(j.Job), nil
}

// mayCancel refuses a caller without a role on what a job is about. Of a job of another node, that one
// knows, and decides.
func (s *Server) mayCancel(ctx context.Context, j row, need auth.Role) error {
	who := callerOf(ctx).Principal
	if sightOf(who) != nil && j.node != "" && j.node != s.opt.NodeID {
		return nil
	}
	return s.needs(who, need, "the cluster", vpoolScopes(j.t.VPools))
}

// findJob finds a job by its id. Of several nodes' jobs of one id, such as surveys that two nodes
// made one after the other, it is the one that has not ended, or the newest.
func (s *Server) findJob(ctx context.Context, id string) (row, error) {
	all, silent := s.jobs(ctx)
	var found *row
	for i, j := range all {
		if j.ID == id && (found == nil || jobKeys(j.Job).Number > jobKeys(found.Job).Number) {
			found = &all[i]
		}
	}
	if found != nil {
		return *found, nil
	}
	hint := "ovgate task list shows those that are known; what ended is forgotten when its node restarts"
	if len(silent) > 0 {
		hint = "node " + silent[0].Node + " does not answer, and may know it; " + hint
	}
	return row{}, refuse(http.StatusNotFound, "not_found", "task "+clip(id), hint, "there is no such task")
}

// ClearJobs forgets ended jobs, on every node that answers.
func (s *Server) ClearJobs(ctx context.Context, _ ClearJobsRequestObject) (ClearJobsResponseObject, error) {
	s.opt.Tasks.Clear()
	if err := s.opt.Alba.ClearJobs(ctx); err != nil {
		return nil, albaError("", err)
	}
	if callerOf(ctx).node != "" {
		return ClearJobs204Response{}, nil
	}
	var mu sync.Mutex
	var failed []string
	s.eachPeer(func(n model.Node) {
		if _, err := s.askPeer(ctx, http.MethodDelete, n.ID, "/jobs", callerOf(ctx).Principal, askWait); err != nil {
			mu.Lock()
			failed = append(failed, fmt.Sprintf("node %s: %v", n.Name, err))
			mu.Unlock()
		}
	})
	if len(failed) > 0 {
		slices.Sort(failed)
		return nil, refuse(http.StatusServiceUnavailable, "timeout", "", "try again when it answers; repeating does no harm", "not every node forgot: %s", clip(strings.Join(failed, "; ")))
	}
	return ClearJobs204Response{}, nil
}

// jobs returns the jobs of all nodes, and which nodes did not answer; asked by another node, those
// of this one.
func (s *Server) jobs(ctx context.Context) ([]row, []SilentNode) {
	silent := []SilentNode{}
	rows, err := s.ownJobs(ctx)
	if err != nil {
		silent = append(silent, SilentNode{Node: s.opt.NodeName, Error: clip("the object store: " + err.Error())})
	}
	rows = seenJobs(s.sight(ctx), rows)
	if callerOf(ctx).node != "" {
		return rows, silent
	}
	rows = append(rows, seenJobs(s.sight(ctx), s.clusterJobs())...)
	peers, more := s.peerJobs(ctx)
	return append(rows, peers...), append(silent, more...)
}

// seenJobs are the jobs that can be read.
func seenJobs(seen *sight, rows []row) []row {
	return slices.DeleteFunc(rows, func(j row) bool { return !seen.vpools(j.t.VPools) })
}

// ownJobs returns the jobs of this node.
func (s *Server) ownJobs(ctx context.Context) ([]row, error) {
	all := s.opt.Control.Tasks()
	own, err := s.opt.Alba.OwnJobs(ctx)
	for _, j := range own {
		all = append(all, maintenanceTask(j))
	}
	rows := make([]row, len(all))
	for i, t := range all {
		rows[i] = row{jobOfTask(t, s.opt.NodeName, s.clock.Now()), s.opt.NodeID, t}
	}
	return rows, err
}

// clusterJobs returns the jobs that records alone tell of.
func (s *Server) clusterJobs() (rows []row) {
	now := s.clock.Now()
	for _, t := range s.opt.Control.ClusterTasks() {
		rows = append(rows, row{jobOfTask(t, "", now), "", t})
	}
	if s.opt.VSphere != nil {
		for _, d := range s.opt.Model.Datastores(func(d model.Datastore) bool { return d.Job != nil }) {
			t := s.opt.VSphere.Task(d)
			rows = append(rows, row{jobOfTask(t, s.opt.Control.NodeName(d.Node), now), d.Node, t})
		}
	}
	return rows
}

// peerJobs asks the other nodes for their jobs.
func (s *Server) peerJobs(ctx context.Context) (rows []row, silent []SilentNode) {
	var mu sync.Mutex
	s.eachPeer(func(n model.Node) {
		h, err := s.hear(ctx, n)
		mu.Lock()
		defer mu.Unlock()
		for _, j := range h.jobs {
			t := task.Task{ID: j.ID, Kind: task.Kind(j.Kind), State: task.State(j.State)}
			j.Node = n.Name
			rows = append(rows, row{j, n.ID, t})
		}
		if err != nil {
			silent = append(silent, SilentNode{Node: n.Name, ObservedAt: when(h.at), Error: clip(err.Error())})
		}
	})
	slices.SortFunc(silent, func(a, b SilentNode) int { return strings.Compare(a.Node, b.Node) })
	return rows, silent
}

// hear asks a node for its jobs; with an error it is what the node said last.
func (s *Server) hear(ctx context.Context, n model.Node) (heard, error) {
	now := s.clock.Now()
	jobs, err := s.askJobs(ctx, n.ID)
	if s.sight(ctx) != nil {
		return heard{jobs: jobs, at: now}, err // what is remembered is of who sees everything
	}
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	if err != nil {
		return s.board.nodes[n.ID], err
	}
	if s.board.nodes == nil || len(s.board.nodes) > model.MaxPage { // of nodes that left
		s.board.nodes = map[string]heard{}
	}
	h := heard{jobs: jobs, at: now}
	s.board.nodes[n.ID] = h
	return h, nil
}

// askJobs asks a node for its jobs.
func (s *Server) askJobs(ctx context.Context, node string) ([]Job, error) {
	var l JobList
	if err := s.readPeer(ctx, node, fmt.Sprintf("/jobs?limit=%d", model.MaxPage), callerOf(ctx).Principal, askWait, &l); err != nil {
		return nil, err
	}
	for _, j := range l.Items {
		if j.State == "" {
			return nil, fmt.Errorf("its version tells too little of its jobs: upgrade it")
		}
	}
	return l.Items, nil
}

// jobOfTask is what is shown of a task of a node.
func jobOfTask(t task.Task, node string, now time.Time) Job {
	text := func(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxJobText)], "") }
	out := Job{
		ID: t.ID, Kind: JobKind(t.Kind), What: text(t.What), Object: text(t.Object), Node: node, State: JobState(t.State), StartedAt: when(t.Started), EndedAt: when(t.Ended),
		Done: t.Done, Total: t.Total, Unit: t.Unit, Bytes: t.Bytes, Error: some(text(t.Error)), Hint: text(t.Hint), Cancellable: t.Cancels,
	}
	switch {
	case t.State == task.Done:
		out.Progress = new(1.0)
	case t.Total > 0:
		out.Progress = new(min(1, float64(max(0, t.Done))/float64(t.Total)))
	}
	if !t.Ended.IsZero() {
		now = t.Ended
	}
	if took := now.Sub(t.Started).Seconds(); !t.Started.IsZero() && took > 0 {
		out.PerSecond, out.BytesPerSecond = float64(t.Done)/took, float64(t.Bytes)/took
	}
	if left := t.Total - t.Done; t.State == task.Running && left > 0 && out.PerSecond > 0 {
		out.LeftMs = new(int64(float64(left) / out.PerSecond * 1000))
	}
	return out
}
