package api

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"
)

// TestAssetIsCompressed: a browser that takes gzip gets it, others the file, and both know it again.
func TestAssetIsCompressed(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("let a = 1;\n"), 1000)
	small, err := compress(body)
	if err != nil {
		t.Fatal(err)
	}
	a := asset{body, small, `"tag"`, "text/javascript"}
	ask := func(header, value string) *httptest.ResponseRecorder {
		t.Helper()
		r, w := httptest.NewRequest(http.MethodGet, "/assets/app.js", http.NoBody), httptest.NewRecorder()
		r.Header.Set(header, value)
		if err := a.serve(echo.New().NewContext(r, w)); err != nil {
			t.Fatal(err)
		}
		return w
	}
	plain, packed := ask("Accept-Encoding", "br"), ask("Accept-Encoding", "gzip, br")
	if plain.Header().Get("Content-Encoding") != "" || !bytes.Equal(plain.Body.Bytes(), body) {
		t.Error("without gzip the answer is not the file")
	}
	if packed.Header().Get("Content-Encoding") != "gzip" || packed.Body.Len() > len(body)/5 || packed.Header().Get("Vary") == "" {
		t.Errorf("with gzip: %v, %d bytes", packed.Header(), packed.Body.Len())
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, body) {
		t.Errorf("what is unpacked is another file: %v", err)
	}
	for _, w := range []*httptest.ResponseRecorder{plain, packed} {
		if again := ask("If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified {
			t.Errorf("ETag %s: %d", w.Header().Get("ETag"), again.Code)
		}
	}
}

func TestTakesGzip(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]bool{
		"": false, "gzip": true, "gzip, deflate, br": true, "br": false, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "gzip;q=1.0": true, "xgzip": false,
	} {
		if takesGzip(accept) != want {
			t.Errorf("%q: %t", accept, !want)
		}
	}
}
