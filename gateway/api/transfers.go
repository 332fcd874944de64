package api

import (
	"bytes"
	"context"
	"io"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
)

func transferOf(t control.Transfer) Transfer {
	return Transfer{ID: t.ID, VDisk: t.VDisk, Size: t.Size, ClusterSize: int64(t.ClusterSize)}
}

// BeginImport makes a vDisk that an image is written to.
func (s *Server) BeginImport(ctx context.Context, r BeginImportRequestObject) (BeginImportResponseObject, error) {
	in := newDiskOf(r.Body)
	var err error
	if in.VPool, err = s.poolFor(ctx, in.VPool, "vpool", auth.RoleWrite); err != nil {
		return nil, err
	}
	t, err := s.opt.Control.BeginImport(ctx, in)
	if err != nil {
		return nil, err
	}
	return BeginImport201JSONResponse(transferOf(t)), nil
}

// GetImport shows it, and counts as use.
func (s *Server) GetImport(ctx context.Context, r GetImportRequestObject) (GetImportResponseObject, error) {
	t, err := s.opt.Control.TouchTransfer(ctx, r.Transfer, true)
	if err != nil {
		return nil, err
	}
	return GetImport200JSONResponse(transferOf(t)), nil
}

// GetExport shows it, and counts as use.
func (s *Server) GetExport(ctx context.Context, r GetExportRequestObject) (GetExportResponseObject, error) {
	t, err := s.opt.Control.TouchTransfer(ctx, r.Transfer, false)
	if err != nil {
		return nil, err
	}
	return GetExport200JSONResponse(transferOf(t)), nil
}

// WriteImport writes a range of it.
func (s *Server) WriteImport(ctx context.Context, r WriteImportRequestObject) (WriteImportResponseObject, error) {
	// One more than is allowed is enough to refuse it; envelope bounds it too.
	data, err := io.ReadAll(io.LimitReader(r.Body, control.MaxTransfer+1))
	if err != nil {
		return nil, err
	}
	if err := s.opt.Control.WriteImport(ctx, r.Transfer, r.Params.Offset, data); err != nil {
		return nil, err
	}
	return WriteImport204Response{}, nil
}

// FinishImport makes it a vDisk like any other.
func (s *Server) FinishImport(ctx context.Context, r FinishImportRequestObject) (FinishImportResponseObject, error) {
	v, err := s.opt.Control.FinishImport(ctx, r.Transfer)
	if err != nil {
		return nil, err
	}
	return FinishImport200JSONResponse(s.diskView(ctx).row(v)), nil
}

// AbortImport gives it up.
func (s *Server) AbortImport(ctx context.Context, r AbortImportRequestObject) (AbortImportResponseObject, error) {
	return AbortImport204Response{}, s.opt.Control.AbortImport(ctx, r.Transfer)
}

// BeginExport holds a point of a vDisk.
func (s *Server) BeginExport(ctx context.Context, r BeginExportRequestObject) (BeginExportResponseObject, error) {
	in := ExportInput{}
	if r.Body != nil {
		in = *r.Body
	}
	t, err := s.opt.Control.BeginExport(ctx, r.VDisk, pointOf(in.Snapshot, in.PointAt))
	if err != nil {
		return nil, err
	}
	return BeginExport201JSONResponse(transferOf(t)), nil
}

// GetExtents tells where it has data.
func (s *Server) GetExtents(ctx context.Context, r GetExtentsRequestObject) (GetExtentsResponseObject, error) {
	all, next, err := s.opt.Control.Extents(ctx, r.Transfer, r.Params.Offset)
	if err != nil {
		return nil, err
	}
	out := GetExtents200JSONResponse{Items: []Extent{}}
	for _, e := range all {
		out.Items = append(out.Items, Extent{Offset: e.Offset, Length: e.Length})
	}
	if next >= 0 {
		out.Next = &next
	}
	return out, nil
}

// ReadExport reads a range of it.
func (s *Server) ReadExport(ctx context.Context, r ReadExportRequestObject) (ReadExportResponseObject, error) {
	b, err := s.opt.Control.ReadExport(ctx, r.Transfer, r.Params.Offset, r.Params.Length)
	if err != nil {
		return nil, err
	}
	return ReadExport200ApplicationOctetStreamResponse{Body: bytes.NewReader(b), ContentLength: int64(len(b))}, nil
}

// EndExport lets go of the point.
func (s *Server) EndExport(ctx context.Context, r EndExportRequestObject) (EndExportResponseObject, error) {
	return EndExport204Response{}, s.opt.Control.EndExport(ctx, r.Transfer)
}
