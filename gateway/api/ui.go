package api

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/labstack/echo/v4"
)

// asset is a file of the UI with its validator.
type asset struct {
	body  []byte
	small []byte // body with gzip; nil: not worth it
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
		small, err := compress(b)
		if err != nil {
			return err
		}
		files[p] = asset{b, small, `"` + hex.EncodeToString(sum[:16]) + `"`, ctype}
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

// compress returns b with gzip, or nil where that saves less than a tenth, as of fonts.
func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(b); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil || out.Len() > len(b)*9/10 {
		return nil, err
	}
	return out.Bytes(), nil
}

// takesGzip reports whether Accept-Encoding names gzip, without the weight 0.
func takesGzip(accept string) bool {
	for coding := range strings.SplitSeq(accept, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if strings.TrimSpace(name) == "gzip" {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64)
			return weight == "" || err == nil && q > 0
		}
	}
	return false
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
	h.Set("Vary", "Accept-Encoding")
	if a.small != nil && takesGzip(c.Request().Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		h.Set("ETag", "W/"+a.etag)
		return c.Blob(http.StatusOK, a.ctype, a.small)
	}
	return c.Blob(http.StatusOK, a.ctype, a.body)
}
