package client_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/openvstorage/ovgate/internal/client"
)

// FuzzAnswer reads any answer: an object or an error that says something.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "application/json", []byte(`{"name":"demo","size":1}`))
	f.Add(409, "application/json", []byte(`{"code":"in_use","message":"m","object":"o","hint":null}`))
	f.Add(404, "application/json; charset", []byte(`{"code":`))
	f.Add(500, "text/html", []byte("\x1b[2J"))
	f.Add(-1, ";;", []byte("null"))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		resp := &http.Response{
			StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(bytes.NewReader(body)),
			Request: &http.Request{URL: &url.URL{Scheme: "https", Host: "node"}},
		}
		_, err := client.Get[client.VDisk](resp, nil)
		if err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		if err == nil && (status < 200 || status > 299) {
			t.Errorf("status %d is no error", status)
		}
	})
}
