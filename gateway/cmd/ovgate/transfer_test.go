package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/internal/client"
)

// transferFake is a node whose transfers go wrong as a test says. What it does not
// answer panics through the embedded nil.
type transferFake struct {
	api.StrictServerInterface
	mu      sync.Mutex
	ended   int               // ended or aborted transfers
	writes  int               // ranges that were written
	onWrite func(n int) error // before the n-th is answered
	onRead  func(n int) ([]byte, error)
	reads   int
	extents []api.ExtentList
	size    int64
	touched chan struct{} // closed when an import is asked for
	once    sync.Once
}

func (f *transferFake) transfer() api.Transfer {
	return api.Transfer{ID: "t", VDisk: "d", Size: f.size, ClusterSize: 4096}
}

func (f *transferFake) BeginImport(context.Context, api.BeginImportRequestObject) (api.BeginImportResponseObject, error) {
	return api.BeginImport201JSONResponse(f.transfer()), nil
}

func (f *transferFake) WriteImport(_ context.Context, r api.WriteImportRequestObject) (api.WriteImportResponseObject, error) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.writes++
	n := f.writes
	f.mu.Unlock()
	if err := f.onWrite(n); err != nil {
		return nil, err
	}
	return api.WriteImport204Response{}, nil
}

func (f *transferFake) FinishImport(context.Context, api.FinishImportRequestObject) (api.FinishImportResponseObject, error) {
	return nil, errors.New("finished, although it went wrong")
}

func (f *transferFake) GetImport(context.Context, api.GetImportRequestObject) (api.GetImportResponseObject, error) {
	if f.touched != nil {
		f.once.Do(func() { close(f.touched) })
	}
	return api.GetImport200JSONResponse(f.transfer()), nil
}

func (f *transferFake) GetExport(context.Context, api.GetExportRequestObject) (api.GetExportResponseObject, error) {
	return api.GetExport200JSONResponse(f.transfer()), nil
}

func (f *transferFake) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended++
}

func (f *transferFake) AbortImport(context.Context, api.AbortImportRequestObject) (api.AbortImportResponseObject, error) {
	f.end()
	return api.AbortImport204Response{}, nil
}

func (f *transferFake) BeginExport(context.Context, api.BeginExportRequestObject) (api.BeginExportResponseObject, error) {
	return api.BeginExport201JSONResponse(f.transfer()), nil
}

func (f *transferFake) GetExtents(context.Context, api.GetExtentsRequestObject) (api.GetExtentsResponseObject, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.extents[0]
	if len(f.extents) > 1 {
		f.extents = f.extents[1:]
	}
	return api.GetExtents200JSONResponse(l), nil
}

func (f *transferFake) ReadExport(_ context.Context, r api.ReadExportRequestObject) (api.ReadExportResponseObject, error) {
	f.mu.Lock()
	f.reads++
	n := f.reads
	f.mu.Unlock()
	b, err := f.onRead(n)
	if err != nil {
		return nil, err
	}
	if b == nil {
		b = bytes.Repeat([]byte{7}, int(r.Params.Length))
	}
	return api.ReadExport200ApplicationOctetStreamResponse{Body: bytes.NewReader(b), ContentLength: int64(len(b))}, nil
}

func (f *transferFake) EndExport(context.Context, api.EndExportRequestObject) (api.EndExportResponseObject, error) {
	f.end()
	return api.EndExport204Response{}, nil
}

// runTransfer runs a command line against a node.
func runTransfer(ctx context.Context, t *testing.T, f *transferFake, args ...string) (code int, errs string) {
	t.Helper()
	e := echo.New()
	api.RegisterHandlersWithBaseURL(e, api.NewStrictHandler(f, nil), api.BasePath)
	node := httptest.NewTLSServer(e)
	defer node.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: node.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, err bytes.Buffer
	a := &app{env: client.System(), in: strings.NewReader(""), out: &out, err: &err, url: node.URL, ca: ca, keepEvery: time.Millisecond}
	a.env.Getenv = func(name string) string {
		return map[string]string{"OVGATE_URL": node.URL, "OVGATE_CA": ca, "OVGATE_TOKEN": "x"}[name]
	}
	return run(ctx, append([]string{"--url", node.URL, "--ca", ca, "vdisk"}, args...), a), err.String()
}

// TestExportFails: whatever a node answers, and when the command is interrupted, an
// export leaves no file and ends at the node.
func TestExportFails(t *testing.T) {
	const mib = 1 << 20
	whole := api.ExtentList{Items: []api.Extent{{Offset: 0, Length: 40 * mib}}}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	for _, c := range []struct {
		why     string
		ctx     context.Context
		extents []api.ExtentList
		onRead  func(int) ([]byte, error)
		want    string
	}{
		{"an error", t.Context(), []api.ExtentList{whole}, func(n int) ([]byte, error) {
			if n > 20 {
				return nil, errors.New("medium error")
			}
			return nil, nil
		}, "answered 500"},
		{"fewer bytes", t.Context(), []api.ExtentList{whole}, func(n int) ([]byte, error) { return make([]byte, 512), nil }, "512 bytes at offset 0"},
		{"more bytes", t.Context(), []api.ExtentList{whole}, func(n int) ([]byte, error) { return make([]byte, 3*mib), nil }, "bytes at offset 0"},
		{"an extent beyond the end", t.Context(), []api.ExtentList{{Items: []api.Extent{{Offset: 40 * mib, Length: 1 << 62}}}}, nil, "answered an extent"},
		{"a negative extent", t.Context(), []api.ExtentList{{Items: []api.Extent{{Offset: -4096, Length: 8192}}}}, nil, "answered an extent"},
		{"no end", t.Context(), []api.ExtentList{{Next: new(int64)}}, nil, "go on at 0"},
		{"interrupted", ctx, []api.ExtentList{whole}, func(n int) ([]byte, error) {
			if n == 10 {
				interrupt()
			}
			return nil, nil
		}, "context canceled"},
	} {
		for _, format := range []string{formatRaw, formatQcow2} {
			dir := t.TempDir()
			f := &transferFake{size: 64 * mib, extents: slices.Clone(c.extents), onRead: c.onRead}
			code, errs := runTransfer(c.ctx, t, f, "export", "d", filepath.Join(dir, "out"), "--format", format)
			left, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if code != exitFailed || !strings.Contains(errs, c.want) || len(left) != 0 {
				t.Errorf("%s, %s: exit code %d, %v left, %s", c.why, format, code, left, errs)
			}
			if began := c.ctx.Err() == nil || c.why == "interrupted" && format == formatRaw; began && f.ended != 1 {
				t.Errorf("%s, %s: ended %d times at the node", c.why, format, f.ended)
			}
		}
	}
}

// TestExportTaken: a file that appears meanwhile is not replaced.
func TestExportTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f := &transferFake{size: 1 << 20, extents: []api.ExtentList{{Items: []api.Extent{{Offset: 0, Length: 4096}}}}}
	f.onRead = func(int) ([]byte, error) { return nil, os.WriteFile(path, []byte("mine"), 0o600) }
	code, errs := runTransfer(t.Context(), t, f, "export", "d", path)
	b, err := os.ReadFile(path)
	if code != exitFailed || !strings.Contains(errs, "file exists") || err != nil || string(b) != "mine" {
		t.Errorf("exit code %d, %q, %v, %s", code, b, err, errs)
	}
}

// TestImportFails: an error, and an interrupt, end an import at the node, and it is
// never finished.
func TestImportFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 30<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	for _, c := range []struct {
		why     string
		ctx     context.Context
		onWrite func(int) error
		want    string
	}{
		{"an error", t.Context(), func(n int) error {
			if n == 12 {
				return errors.New("no space")
			}
			return nil
		}, "answered 500"},
		{"interrupted", ctx, func(n int) error {
			if n == 12 {
				interrupt()
			}
			return nil
		}, "context canceled"},
	} {
		f := &transferFake{size: 30 << 20, onWrite: c.onWrite}
		code, errs := runTransfer(c.ctx, t, f, "import", file, "d")
		if code != exitFailed || f.ended != 1 || strings.Contains(errs, "although") || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit code %d, ended %d times, %s", c.why, code, f.ended, errs)
		}
		if f.writes >= 30 {
			t.Errorf("%s: %d ranges were sent all the same", c.why, f.writes)
		}
	}
}

// TestImportKept: an import whose ranges take long to come is kept.
func TestImportKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &transferFake{size: 4096, touched: make(chan struct{})}
	f.onWrite = func(int) error {
		select {
		case <-f.touched:
		case <-time.After(startLimit):
			return errors.New("nobody asked for the import")
		}
		return errors.New("asked for")
	}
	if _, errs := runTransfer(t.Context(), t, f, "import", file, "d"); strings.Contains(errs, "nobody") {
		t.Error(errs)
	}
	select {
	case <-f.touched:
	default:
		t.Error("the import was not asked for")
	}
}

// TestPieces: what is sent is what is not zeros, in bounds, and together the content.
func TestPieces(t *testing.T) {
	for _, n := range []int{1, 511, 4096, 4097, 3 * 4096, rangeBytes, 2*rangeBytes + 700} {
		for _, every := range []int{1, 2, 5} {
			p := make([]byte, n)
			for i := range p {
				if i/blockBytes%every == 0 {
					p[i] = byte(i%251) + 1
				}
			}
			got := make([]byte, n+512)
			if err := pieces(8192, p, func(off int64, b []byte) error {
				if len(b)%512 != 0 || len(b) == 0 || len(b) > rangeBytes || (off-8192)%blockBytes != 0 || isZero(b[:min(len(b), blockBytes)]) {
					t.Errorf("%d bytes at %d", len(b), off)
				}
				copy(got[off-8192:], b)
				return nil
			}); err != nil || !bytes.Equal(got[:n], p) {
				t.Errorf("%d bytes, every %d: differs, or %v", n, every, err)
			}
		}
	}
}

// TestImportZeros: an interrupt is heard while there is nothing but zeros to read.
func TestImportZeros(t *testing.T) {
	file := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := openImage(file, "")
	if err != nil {
		t.Fatal(err)
	}
	defer img.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := img.each(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
