package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// plainS3 is what an S3 peer is asked by the client that its users take.
type plainS3 struct {
	client *minio.Client
	bucket string
}

func dialS3(p *node.Peer) (*plainS3, error) {
	u, err := url.Parse(p.Said["endpoint"])
	if err != nil {
		return nil, err
	}
	t := &http.Transport{MaxIdleConnsPerHost: 2 * largeDepth, DisableCompression: true}
	if ca := p.Said["ca"]; ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool()}
		t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
		// Larger than the usual 4 KiB, as those of the Alba's client are.
		t.ReadBufferSize, t.WriteBufferSize = 64<<10, 64<<10
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(p.Said["access_key"], p.Said["secret_key"], ""), Region: p.Said["region"],
		Transport: t, Secure: u.Scheme == "https",
	})
	return &plainS3{c, p.Said["bucket"]}, err
}

func (s *plainS3) put(ctx context.Context, name string, data []byte) error {
	_, err := s.client.PutObject(ctx, s.bucket, name, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{DisableMultipart: true})
	return err
}

func (s *plainS3) get(ctx context.Context, name string, into []byte) error {
	o, err := s.client.GetObject(ctx, s.bucket, name, minio.GetObjectOptions{})
	if err != nil {
		return err
	}
	_, err = io.ReadFull(o, into)
	return errors.Join(err, o.Close())
}

func (s *plainS3) remove(ctx context.Context, name string) error {
	return s.client.RemoveObject(ctx, s.bucket, name, minio.RemoveObjectOptions{})
}

// minioPeer is MinIO with as many drives as the Alba has devices, and as much parity.
type minioPeer struct {
	*plainS3
	key        string // begins the keys of its steps
	peer       *node.Peer
	kept, made minioObjects
}

// Keys of the two ways to speak to MinIO.
const (
	minioTLS   = "minio"
	minioClear = "clear-minio"
)

// openMinIO starts MinIO, with TLS or without, and stores what is read.
func openMinIO(ctx context.Context, dir, key string) (*minioPeer, error) {
	fmt.Println("bench: preparing", key, "which is built at its first use")
	args := []string{"--kind", "minio", "--drives", fmt.Sprint(albaASDs), "--data", filepath.Join(dir, key)}
	if key == minioTLS {
		args = append(args, "--tls")
	}
	p, err := startPeer(ctx, dir, "s3", "bench-"+key, args...)
	if err != nil {
		return nil, err
	}
	m := &minioPeer{key: key, peer: p}
	if m.plainS3, err = dialS3(p); err == nil {
		m.kept, m.made = minioObjects{m.plainS3, "kept"}, minioObjects{m.plainS3, "put"}
		err = fill4(&m.kept, largeKept)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return m, nil
}

func (m *minioPeer) config() string {
	over := "HTTP over loopback with TLS 1.3"
	if m.key == minioClear {
		over = "HTTP over loopback in the clear"
	}
	return fmt.Sprintf("MinIO, %d drives that are directories of the same disk, EC:2, %s, minio-go with %d in flight; a put is answered when a write quorum of its drives wrote and synced the shards",
		albaASDs, over, largeDepth)
}

// minioObjects are objects under a prefix as a disk: each block is one.
type minioObjects struct {
	s      *plainS3
	prefix string
}

func (o *minioObjects) name(off int64, size int) string {
	return fmt.Sprintf("%s/%08d", o.prefix, off/int64(size))
}

// WriteAt implements disk.
func (o *minioObjects) WriteAt(p []byte, off int64) (int, error) {
	return len(p), o.s.put(context.Background(), o.name(off, len(p)), p)
}

// ReadAt implements disk.
func (o *minioObjects) ReadAt(p []byte, off int64) (int, error) {
	return len(p), o.s.get(context.Background(), o.name(off, len(p)), p)
}

func (m *minioPeer) steps() []step {
	none := func(context.Context) error { return nil }
	const megabytes = float64(largeObject) / 1e6
	w := work{name: m.key + " put", write: true, depth: largeDepth, block: largeObject, inOrder: true}
	r := w
	r.name, r.write = m.key+" get", false
	return []step{
		onDisk(albaPrefix+m.key+"-put", w, &m.made, objectSpace*largeObject, none).scaled(megabytes),
		onDisk(albaPrefix+m.key+"-get", r, &m.kept, largeKept*largeObject, none).scaled(megabytes),
	}
}
