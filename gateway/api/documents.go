package api

import (
	"context"
	"net/http"

	"github.com/openvstorage/ovgate/gateway/docs"
	"github.com/openvstorage/ovgate/gateway/model"
)

// ListDocuments lists the documentation that is part of the program.
func (s *Server) ListDocuments(_ context.Context, r ListDocumentsRequestObject) (ListDocumentsResponseObject, error) {
	pages, err := docs.Pages()
	if err != nil {
		return nil, err
	}
	rows := []DocumentTitle{}
	for _, p := range pages {
		if matches(r.Params.Q, p.Name+" "+p.Title, nil) {
			rows = append(rows, DocumentTitle{Name: p.Name, Title: p.Title})
		}
	}
	items, next, err := page(rows, func(d DocumentTitle) model.Keys { return model.Keys{Text: d.Name, ID: d.Name} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListDocuments200JSONResponse{items, next}, err
}

// GetDocument returns a document as Markdown.
func (s *Server) GetDocument(_ context.Context, r GetDocumentRequestObject) (GetDocumentResponseObject, error) {
	pages, err := docs.Pages()
	if err != nil {
		return nil, err
	}
	for _, p := range pages {
		if p.Name == r.Document {
			return GetDocument200JSONResponse{Name: p.Name, Title: p.Title, Text: p.Text}, nil
		}
	}
	return nil, refuse(http.StatusNotFound, "not_found", "document "+clip(r.Document), "GET /documents lists them", "there is no document %s", clip(r.Document))
}
