package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/oidc/oidctest"
)

// idps are the providers of scripts, by their issuer.
var idps sync.Map

// idp is the script command of that name.
func idp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: idp CAFILE")
	}
	p, err := oidctest.New()
	ts.Check(err)
	ts.Defer(p.Close)
	p.Put("anna", oidctest.User{Subject: "1", Claims: map[string]any{"preferred_username": "anna", "groups": []string{"staff"}}})
	idps.Store(p.Issuer(), p)
	ts.Setenv("IDP", p.Issuer())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(p.CA()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("idp.secret"), []byte(oidctest.Secret+"\n"), 0o600))
}

// enter is the script command of that name.
func enter(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: enter STATUS USER")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	v, ok := idps.Load(ts.Getenv("IDP"))
	if !ok {
		ts.Fatalf("enter: no idp before")
	}
	p := v.(*oidctest.Provider)
	origin := "https://" + ts.Getenv("API")
	p.Register(origin + "/login/oidc")
	// Whether it is the node is looked at by the command line; this is about people.
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: startLimit}
	post := func(path string, body map[string]string, cookies []*http.Cookie) (int, []*http.Cookie, []byte) {
		b, err := json.Marshal(body)
		ts.Check(err)
		r, err := http.NewRequest(http.MethodPost, origin+api.BasePath+path, bytes.NewReader(b))
		ts.Check(err)
		r.Header.Set("Content-Type", "application/json")
		for _, k := range cookies {
			r.AddCookie(k)
		}
		res, err := c.Do(r)
		ts.Check(err)
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		ts.Check(err)
		return res.StatusCode, res.Cookies(), text
	}
	status, cookies, text := post("/session/oidc", map[string]string{"address": origin}, nil)
	if status != http.StatusOK {
		ts.Fatalf("begin: %d %s", status, text)
	}
	var to struct{ URL string }
	ts.Check(json.Unmarshal(text, &to))
	back, err := p.SignIn(to.URL, args[1])
	ts.Check(err)
	answer := map[string]string{"state": back.Get("state"), "iss": back.Get("iss")}
	for from, name := range map[string]string{"code": "code", "error": "error", "error_description": "errorDescription"} {
		if v := back.Get(from); v != "" {
			answer[name] = v
		}
	}
	if status, _, text = post("/session/oidc/answer", answer, cookies); status != want {
		ts.Fatalf("signing in as %s: %d %s, want %d", args[1], status, strings.TrimSpace(string(text)), want)
	}
}
