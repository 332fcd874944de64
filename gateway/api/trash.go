package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/model"
)

func (s *Server) trashedOf(v model.VDisk) Trashed {
	pool, _ := s.opt.Model.VPool(v.VPool)
	return Trashed{
		ID: v.ID, Name: v.Name, VPool: pool.Name, Size: v.Size, Stored: v.Stored, Labels: labelsOf(v.Labels),
		TrashedAt: v.Trashed.UTC(), PurgeAt: s.opt.Control.PurgeAt(v).UTC(),
	}
}

// ListTrash lists the vDisks in the trash.
func (s *Server) ListTrash(ctx context.Context, r ListTrashRequestObject) (ListTrashResponseObject, error) {
	pool, err := s.poolFilter(ctx, r.Params.VPool)
	if err != nil {
		return nil, err
	}
	seen := s.sight(ctx)
	var rows []Trashed
	for _, v := range s.opt.Control.Trash() {
		if seen.vpool(v.VPool) && (pool == "" || v.VPool == pool) && matches(r.Params.Q, v.Name, v.Labels) {
			rows = append(rows, s.trashedOf(v))
		}
	}
	keys := func(v Trashed) model.Keys { return model.Keys{Number: unix(v.PurgeAt), ID: v.ID} }
	items, next, err := page(rows, keys, "purgeAt", false, r.Params.Cursor, r.Params.Limit)
	return ListTrash200JSONResponse{items, next}, err
}

// RestoreTrash takes a vDisk out of the trash.
func (s *Server) RestoreTrash(ctx context.Context, r RestoreTrashRequestObject) (RestoreTrashResponseObject, error) {
	v, err := s.opt.Control.RestoreVDisk(ctx, r.VDisk, r.Body.Name)
	if err != nil {
		return nil, err
	}
	return RestoreTrash200JSONResponse(s.diskView(ctx).row(v)), nil
}

// PurgeTrash deletes a vDisk in the trash for good.
func (s *Server) PurgeTrash(ctx context.Context, r PurgeTrashRequestObject) (PurgeTrashResponseObject, error) {
	if err := s.opt.Control.PurgeVDisk(ctx, r.VDisk); err != nil {
		return nil, err
	}
	return PurgeTrash204Response{}, nil
}
