package api

import (
	"bufio"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/clock"
)

// TestQuietStream: a stream on which nothing happens for longer than a write may take goes
// on.
func TestQuietStream(t *testing.T) {
	const limit = 2 * time.Second
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			hub := observe.NewHub(nil)
			s := &Server{opt: Options{Hub: hub}, clock: clock.Real{}, closing: make(chan struct{})}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, ok := hub.Subscribe(nil, 0)
				if !ok {
					t.Error("no subscription")
					return
				}
				defer hub.Unsubscribe(c)
				out := &stream{rc: http.NewResponseController(w), w: w, limit: limit}
				if err := out.start(); err != nil {
					t.Error(err)
					return
				}
				s.pump(r.Context(), out, c)
			}))
			server.EnableHTTP2 = version == "HTTP/2.0"
			server.Config.ReadTimeout, server.Config.WriteTimeout = limit, limit
			server.StartTLS()
			defer server.Close()
			defer close(s.closing)
			httpClient := server.Client()
			if version == "HTTP/1.1" {
				httpClient.Transport.(*http.Transport).TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			}
			resp, err := httpClient.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.Proto != version {
				t.Fatalf("the stream has %s", resp.Proto)
			}
			lines := bufio.NewScanner(resp.Body)
			next := func() string {
				t.Helper()
				for lines.Scan() {
					if text := lines.Text(); text != "" {
						return text
					}
				}
				t.Fatalf("the stream ended: %v", lines.Err())
				return ""
			}
			if first := next(); !strings.HasPrefix(first, "retry: ") {
				t.Fatalf("the stream begins with %q", first)
			}
			<-time.After(5 * limit) // what is tested is time that passes
			hub.Changed("cloud", "one", func() observe.News { return observe.News{Name: "cloud", Object: "one"} })
			hub.Flush()
			next() // its id
			if event := next(); event != "event: cloud" {
				t.Errorf("there came %q", event)
			}
		})
	}
}
