package api

import (
	"bytes"
	"context"
	"html/template"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	vspherectl "github.com/openvstorage/ovgate/gateway/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

func pluginOf(p vspherectl.PluginStatus) CenterPlugin {
	return CenterPlugin{Registered: p.Registered, URL: p.URL, Thumbprint: p.Thumbprint, Version: p.Version, Problem: p.Problem}
}

// GetCenterPlugin tells of the plug-in at a vCenter.
func (s *Server) GetCenterPlugin(ctx context.Context, r GetCenterPluginRequestObject) (GetCenterPluginResponseObject, error) {
	p, err := s.opt.VSphere.Plugin(ctx, r.Center)
	if err != nil {
		return nil, err
	}
	return GetCenterPlugin200JSONResponse(pluginOf(p)), nil
}

// RegisterCenterPlugin registers the plug-in at a vCenter.
func (s *Server) RegisterCenterPlugin(ctx context.Context, r RegisterCenterPluginRequestObject) (RegisterCenterPluginResponseObject, error) {
	p, err := s.opt.VSphere.RegisterPlugin(ctx, r.Center, r.Body.URL)
	if err != nil {
		return nil, err
	}
	return RegisterCenterPlugin200JSONResponse(pluginOf(p)), nil
}

// UnregisterCenterPlugin takes the plug-in from a vCenter.
func (s *Server) UnregisterCenterPlugin(ctx context.Context, r UnregisterCenterPluginRequestObject) (UnregisterCenterPluginResponseObject, error) {
	if err := s.opt.VSphere.UnregisterPlugin(ctx, r.Center); err != nil {
		return nil, err
	}
	return UnregisterCenterPlugin204Response{}, nil
}

// pluginPage is a view of the plug-in: who is signed in to the vCenter is not signed in to the
// console, which opens beside it.
var pluginPage = template.Must(template.New("plugin").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ovgate</title></head>
<body><h1>ovgate</h1><p><a href="https://{{.Host}}{{.Path}}" target="_blank" rel="noopener">{{.Text}}</a></p></body></html>
`))

const pluginIcon = `<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" viewBox="0 0 32 32"><circle cx="16" cy="16" r="12" fill="none" stroke="#0079b8" stroke-width="4"/></svg>
`

// routePlugin serves the plug-in of the vSphere Client, to anybody, as the vCenter asks for it
// without an account. Views are shown within the vSphere Client, which has them from its own address.
func (s *Server) routePlugin() {
	serve := func(name, kind string, body func(c echo.Context) ([]byte, error)) {
		s.echo.GET(vspherectl.PluginPath+name, func(c echo.Context) error {
			b, err := body(c)
			if err != nil {
				return err
			}
			h := c.Response().Header()
			h.Set("Content-Security-Policy", strings.Replace(csp, "frame-ancestors 'none'", "frame-ancestors 'self'", 1))
			h.Set("X-Frame-Options", "SAMEORIGIN")
			return c.Blob(http.StatusOK, kind, b)
		})
	}
	page := func(path, text string) func(c echo.Context) ([]byte, error) {
		return func(c echo.Context) ([]byte, error) {
			var b bytes.Buffer
			err := pluginPage.Execute(&b, struct{ Host, Path, Text string }{c.Request().Host, path, text})
			return b.Bytes(), err
		}
	}
	serve("plugin.json", echo.MIMEApplicationJSON, func(echo.Context) ([]byte, error) { return vsphere.Manifest(), nil })
	serve("icon.svg", "image/svg+xml", func(echo.Context) ([]byte, error) { return []byte(pluginIcon), nil })
	serve("index.html", echo.MIMETextHTMLCharsetUTF8, page("/", "Open the console"))
	serve("datastore.html", echo.MIMETextHTMLCharsetUTF8, page("/vsphere", "Open the datastores of ovgate in the console"))
}
