package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// backUpMetadata answers with a backup of the metadata. One is made at a time.
func (s *Server) backUpMetadata(c echo.Context) error {
	if s.opt.Backup == nil {
		return refuse(http.StatusNotFound, "not_found", "", "", "this node has no metadata to back up")
	}
	if !s.backingUp.TryLock() {
		return refuse(http.StatusConflict, "busy", "", "wait until it is there", "another backup of the metadata is being made")
	}
	defer s.backingUp.Unlock()
	ctx, cancel := context.WithTimeout(c.Request().Context(), bundleTime)
	defer cancel()
	told := s.opt.Tasks.Begin(task.Task{Kind: task.Backup, Object: "metadata", What: "write a backup for " + callerOf(ctx).User, Unit: "bytes"}, nil, nil)
	file, size, err := s.opt.Backup(ctx)
	if err != nil {
		told.End(task.Failed, err.Error(), "")
		return err
	}
	defer file.Close()
	h := c.Response().Header()
	h.Set("Content-Type", "application/gzip")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	name := fmt.Sprintf("ovgate-metadata-%s-%s.gz", notInNames.ReplaceAllString(s.opt.NodeName, "_"), s.clock.Now().UTC().Format("20060102T150405Z"))
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	c.Response().WriteHeader(http.StatusOK)
	if _, err := io.Copy(c.Response(), file); err != nil {
		told.End(task.Failed, "its client did not take it: "+err.Error(), "ask for it again")
		s.log.Warn("a backup of the metadata was cut off", "requestId", requestID(c), "err", err)
		panic(http.ErrAbortHandler) // else a part would look like the whole
	}
	told.Set(func(t *task.Task) { t.Done, t.Total, t.Bytes = size, size, size })
	told.End(task.Done, "", "")
	return nil
}

// GetMetadata tells what a restore left to do.
func (s *Server) GetMetadata(ctx context.Context, _ GetMetadataRequestObject) (GetMetadataResponseObject, error) {
	out, err := s.metadata(ctx)
	return GetMetadata200JSONResponse(out), err
}

// AcceptUnclearVDisks lets deletes be on without those that keep them off.
func (s *Server) AcceptUnclearVDisks(ctx context.Context, in AcceptUnclearVDisksRequestObject) (AcceptUnclearVDisksResponseObject, error) {
	if err := s.opt.Control.AcceptUnclear(ctx, in.Body.VPool, in.Body.VDisks); err != nil {
		return nil, err
	}
	out, err := s.metadata(ctx)
	return AcceptUnclearVDisks200JSONResponse(out), err
}

func (s *Server) metadata(ctx context.Context) (Metadata, error) {
	out := Metadata{VPools: []RestoredVPool{}}
	for _, p := range s.opt.Model.VPools() {
		if !s.opt.Control.Reached(p) {
			continue
		}
		r, err := s.opt.Control.VPoolRestore(ctx, p.ID)
		if err != nil {
			return out, err
		}
		if r.Mark == nil && r.Last == nil {
			continue
		}
		v := RestoredVPool{VPool: p.Name, Missing: []StrangeVDisk{}, Orphans: []StrangeVDisk{}, Unclear: []StrangeVDisk{}, Accepted: []StrangeVDisk{}}
		v.DeletesOff, _, v.Reason = s.opt.Control.DeletesOff(p.ID)
		if l := r.Last; l != nil {
			v.BackupAt, v.RestoredAt = l.Made, l.Time
			v.Compared, v.Newer, v.More = l.Compared, l.Newer, l.More
			v.Missing, v.Orphans = strangeOf(l.Missing, s.nameOf), strangeOf(l.Orphans, s.nameOf)
			v.Unclear, v.Accepted = strangeOf(l.Unclear, s.nameOf), strangeOf(l.Accepted, s.nameOf)
			if !l.Ended.IsZero() {
				v.ComparedAt = &l.Ended
			}
		}
		if m := r.Mark; m != nil {
			v.BackupAt, v.RestoredAt = m.Made, m.Time
		}
		out.VPools = append(out.VPools, v)
	}
	return out, nil
}

// nameOf is what a vDisk is called here; empty: it is not known.
func (s *Server) nameOf(id string) string {
	v, _ := s.opt.Model.VDisk(id)
	return v.Name
}

func strangeOf(l []volume.Strange, nameOf func(id string) string) []StrangeVDisk {
	out := make([]StrangeVDisk, 0, len(l))
	for _, d := range l {
		v := StrangeVDisk{ID: d.ID.String(), Name: d.Name, Size: d.Size, Reason: d.Why}
		if v.Name == "" {
			v.Name = nameOf(v.ID)
		}
		out = append(out, v)
	}
	return out
}
