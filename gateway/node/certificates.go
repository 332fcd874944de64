package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
)

const (
	// certEvery is how often certificates are looked at.
	certEvery = time.Minute
	// maxPEM bounds a file with a certificate or key, in bytes.
	maxPEM = 1 << 20
)

// tlsConfig names a certificate for API and UI that an authority of the site signed.
type tlsConfig struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

func (c tlsConfig) check(insecure bool) error {
	for _, f := range []struct{ field, path, other string }{{"certificate", c.Certificate, c.Key}, {"key", c.Key, c.Certificate}} {
		switch {
		case f.path == "" && f.other != "":
			return fmt.Errorf("configuration: tls: %s is missing beside %.100q: name both files", f.field, f.other)
		case f.path != "" && !filepath.IsAbs(f.path):
			return fmt.Errorf("configuration: tls: %s is %.100q: name it from the root", f.field, f.path)
		case f.path != "" && insecure:
			return errors.New("configuration: tls names a certificate, and insecure asks for plain HTTP: leave one out")
		}
	}
	return nil
}

// certificates are what the API's listener shows: the node's own certificate, which the node
// renews, and to those who ask for one of its names the site's, if the configuration has one.
// Both change without a restart, for the connections to come.
type certificates struct {
	dir   *dataDir
	ca    authority
	hosts []string
	files tlsConfig // of the site's
	log   *slog.Logger
	// renewed is told of a certificate that takes the place of another one, once they are
	// followed; nil: nobody is.
	renewed func(what string, ends time.Time)

	own  atomic.Pointer[identity]
	site atomic.Pointer[identity] // nil: none was read yet
	// siteErr and ownErr say why the files of one are not used.
	siteErr, ownErr atomic.Pointer[string]
	odd             bool // the files of the site's did not fit at the last look
}

// openCertificates reads the certificates, and makes the node's own if there is none that
// fits. One of the site that cannot be used is no error: health tells.
func openCertificates(d *dataDir, ca authority, hosts []string, files tlsConfig, log *slog.Logger, now time.Time) (*certificates, error) {
	c := &certificates{dir: d, ca: ca, hosts: hosts, files: files, log: log, odd: true}
	id, err := openTLS(d, ca, hosts, now)
	if err != nil {
		return nil, err
	}
	c.own.Store(&id)
	c.lookSite()
	return c, nil
}

// run looks at the certificates until ctx ends. The node is the only caller.
func (c *certificates) run(ctx context.Context, every time.Duration) {
	if every == 0 {
		every = certEvery
	}
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			c.look(time.Now())
		}
	}
}

// look renews the node's own certificate when little time is left or its files are gone, and
// reads the site's again when its files changed.
func (c *certificates) look(now time.Time) {
	have := c.own.Load()
	id, err := openTLS(c.dir, c.ca, c.hosts, now)
	switch {
	case err != nil:
		c.say(&c.ownErr, "the node's certificate cannot be renewed", err)
	case !bytes.Equal(id.cert.Certificate[0], have.cert.Certificate[0]):
		c.own.Store(&id)
		c.log.Info("the node's certificate was renewed", "ends", id.expiry)
		if c.renewed != nil {
			c.renewed("API and console", id.expiry)
		}
	}
	if err == nil {
		c.ownErr.Store(nil)
	}
	if c.files.Certificate != "" {
		c.lookSite()
	}
}

// say keeps why files are not used, and logs it once.
func (c *certificates) say(where *atomic.Pointer[string], what string, err error) {
	why := err.Error()
	if old := where.Swap(&why); old == nil || *old != why {
		c.log.Error(what, "err", why)
	}
}

// lookSite reads the site's certificate. That its files do not fit is said at the second look:
// they are replaced one after the other.
func (c *certificates) lookSite() {
	if c.files.Certificate == "" {
		return
	}
	id, err := c.files.load()
	if err != nil {
		if c.odd {
			c.say(&c.siteErr, "the certificate of the configuration's tls cannot be used", err)
		}
		c.odd = true
		return
	}
	c.odd = false
	c.siteErr.Store(nil)
	if have := c.site.Load(); have == nil || !bytes.Equal(id.cert.Certificate[0], have.cert.Certificate[0]) {
		c.site.Store(&id)
		c.log.Info("the certificate of the configuration's tls is used", "names", id.cert.Leaf.DNSNames, "ends", id.expiry)
		if have != nil && c.renewed != nil {
			c.renewed("the site's names", id.expiry)
		}
	}
}

// load reads certificate and key.
func (c tlsConfig) load() (identity, error) {
	certificate, err := readPEM(c.Certificate, 0)
	if err != nil {
		return identity{}, err
	}
	key, err := readPEM(c.Key, 0o007)
	if err != nil {
		return identity{}, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return identity{}, fmt.Errorf("%s with the key %s: %w", c.Certificate, c.Key, err)
	}
	if len(pair.Leaf.DNSNames) == 0 {
		return identity{}, fmt.Errorf("%s has no name of a host, so nobody would be shown it: ask for one with a DNS name of this node", c.Certificate)
	}
	return identity{pair, pair.Leaf.NotAfter}, nil
}

// readPEM reads a small file, refused with one of these bits in its mode.
func readPEM(name string, forbidden os.FileMode) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !i.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", name)
	}
	if i.Mode()&forbidden != 0 {
		return nil, fmt.Errorf("%s is open to every user of this machine: chmod o= %s", name, name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxPEM)
	}
	return b, err
}

// config is that of a server. The site's certificate is for those who use one of its names;
// by address, and in the cluster, nodes are known by their own.
func (c *certificates) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if site := c.site.Load(); site != nil && h.ServerName != "" && site.cert.Leaf.VerifyHostname(h.ServerName) == nil {
			return &site.cert, nil
		}
		return &c.own.Load().cert, nil
	}}
}

// observe adds what health looks at.
func (c *certificates) observe(to *observe.Checks, now time.Time) {
	to.HasCert, to.CertLeft = true, c.own.Load().expiry.Sub(now)
	if why := c.ownErr.Load(); why != nil {
		to.CertErr = *why
	}
	if c.files.Certificate == "" {
		return
	}
	to.SiteCert = &observe.CertificateCheck{File: c.files.Certificate}
	if site := c.site.Load(); site != nil {
		to.SiteCert.Used, to.SiteCert.Left = true, site.expiry.Sub(now)
	}
	if why := c.siteErr.Load(); why != nil {
		to.SiteCert.Err = *why
	}
}
