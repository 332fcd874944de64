package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"
)

// asset is a file of the UI with its validator.
type asset struct {
	body  []byte
	etag  string
	ctype string
}

// routeUI serves the UI's files under /assets/ and its page for every other
// path outside /api/, because the page does its own routing.
func (s *Server) routeUI() error {
	if s.opt.UI == nil {
		return nil
	}
	files := map[string]asset{}
	err := fs.WalkDir(s.opt.UI, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(s.opt.UI, p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(b)
		ctype := mime.TypeByExtension(path.Ext(p))
		if ctype == "" {
			ctype = "application/octet-stream"
		}
		files[p] = asset{b, `"` + hex.EncodeToString(sum[:16]) + `"`, ctype}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the UI's files: %w", err)
	}
	index, ok := files["index.html"]
	if !ok {
		return fmt.Errorf("the UI has no index.html: build it with make ui")
	}
	serve := func(c echo.Context) error {
		p := strings.TrimPrefix(path.Clean(c.Request().URL.Path), "/")
		a, ok := files[p]
		switch {
		case ok:
		case p == "api" || strings.HasPrefix(p, "api/") || strings.HasPrefix(p, "assets/") || path.Ext(p) != "" && !strings.Contains(c.Request().Header.Get("Accept"), "text/html"):
			return echo.ErrNotFound
		default:
			a = index
		}
		return a.serve(c)
	}
	s.echo.GET("/*", serve)
	s.echo.HEAD("/*", serve)
	return nil
}

// serve answers with the file, or 304 when the browser has it. Names are fixed,
// so a browser asks each time.
func (a asset) serve(c echo.Context) error {
	h := c.Response().Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", a.etag)
	for have := range strings.SplitSeq(c.Request().Header.Get("If-None-Match"), ",") {
		if have = strings.TrimPrefix(strings.TrimSpace(have), "W/"); have == a.etag || have == "*" {
			return c.NoContent(http.StatusNotModified)
		}
	}
	return c.Blob(http.StatusOK, a.ctype, a.body)
}
