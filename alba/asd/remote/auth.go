package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/wire"
)

// KeyBytes is the length of an access key.
const KeyBytes = 32

const (
	nonceBytes = 32
	macBytes   = sha256.Size
	alpn       = "ovgate-asd/1"
	alpnClear  = "ovgate-asd" + wire.ClearSuffix

	exporterLabel = "EXPORTER-ovgate-asd-1"
	clientLabel   = "ovgate asd 1, client proves"
	serverLabel   = "ovgate asd 1, server proves"

	modeTLS   = 1
	modePlain = 2
	modeClear = 3 // TLS that was left
)

// protocols are what a side takes, the one it prefers first.
func protocols(clear bool) []string {
	if clear {
		return []string{alpnClear, alpn}
	}
	return []string{alpn}
}

// certificateTime is how long a certificate says it is valid. Nobody asks: clients
// pin it.
const certificateTime = 30 * 365 * 24 * time.Hour

// NewCertificate makes the ECDSA P-256 certificate of a device, self-signed and
// valid from an hour before now, for tls.X509KeyPair, and the fingerprint that
// clients pin. The private key comes from random.
func NewCertificate(random io.Reader, now time.Time) (certPEM, keyPEM []byte, fingerprint string, err error) {
	fail := func(err error) ([]byte, []byte, string, error) {
		return nil, nil, "", fmt.Errorf("remote: new certificate: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return fail(err)
	}
	var serial [16]byte
	if _, err := io.ReadFull(random, serial[:]); err != nil {
		return fail(err)
	}
	serial[0] &= 0x7f // positive and at most 20 bytes, RFC 5280 section 4.1.2.2
	serial[15] |= 1
	template := x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial[:]),
		Subject:      pkix.Name{CommonName: "ovgate asd"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(certificateTime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(random, &template, &template, &key.PublicKey, key)
	if err != nil {
		return fail(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return certPEM, keyPEM, Fingerprint(der), nil
}

// Fingerprint returns the SHA-256 of a certificate in DER, as 64 lower-case
// hexadecimal digits.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// parseFingerprint accepts upper case and colons, as other tools print it.
func parseFingerprint(s string) (string, error) {
	f := strings.ToLower(strings.ReplaceAll(s, ":", ""))
	if b, err := hex.DecodeString(f); err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("fingerprint %q is not the SHA-256 of a certificate: give 64 hexadecimal digits", s)
	}
	return f, nil
}

func serverTLS(o *ServerOptions) (*tls.Config, error) {
	if o.TLS != nil {
		t := o.TLS.Clone()
		t.NextProtos, t.SessionTicketsDisabled, t.DynamicRecordSizingDisabled = protocols(o.Clear), true, true // as below
		return t, nil
	}
	if len(o.Certificate.Certificate) == 0 || o.Certificate.PrivateKey == nil {
		return nil, errors.New("remote: server: no certificate: make one with NewCertificate")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{o.Certificate}, MinVersion: tls.VersionTLS13, NextProtos: protocols(o.Clear),
		Rand: o.Rand, Time: o.Clock.Now,
		SessionTicketsDisabled: true, // an idle connection has nothing to read (R4)
		// Messages are large: records too, from the first.
		DynamicRecordSizingDisabled: true,
	}, nil
}

// clientTLS pins the certificate in place of a CA, unless the caller knows the server
// otherwise.
func clientTLS(o *Options) *tls.Config {
	if o.TLS != nil {
		t := o.TLS.Clone()
		t.NextProtos, t.DynamicRecordSizingDisabled = protocols(o.Clear), true
		return t
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols(o.Clear), Rand: o.Rand, Time: o.Clock.Now,
		InsecureSkipVerify:          true, // no names, no CA: VerifyConnection compares the fingerprint
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return fmt.Errorf("%w: it shows no certificate", osd.ErrIdentity)
			}
			if got := Fingerprint(cs.PeerCertificates[0].Raw); got != o.Fingerprint {
				return fmt.Errorf("%w: its certificate has fingerprint %s, expected %s: another device answers at this address, "+
					"or its certificate was renewed; register the device again", osd.ErrIdentity, got, o.Fingerprint)
			}
			return nil
		},
	}
}

// transcript is what both proofs are about; every part but the last has a fixed
// length for a mode.
type transcript struct {
	mode           byte
	client, server [nonceBytes]byte
	binding        []byte
}

func (t *transcript) mac(key []byte, label, identity string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(label))
	h.Write([]byte{t.mode})
	h.Write(t.client[:])
	h.Write(t.server[:])
	h.Write(t.binding)
	h.Write([]byte(identity))
	return h.Sum(nil)
}

func mode(plain bool) byte {
	if plain {
		return modePlain
	}
	return modeTLS
}

func modeName(m byte) string {
	switch m {
	case modeTLS:
		return "TLS"
	case modePlain:
		return "Plain"
	case modeClear:
		return "TLS that it left"
	}
	return fmt.Sprintf("mode %d", m)
}

// handshake is the state of one side on its way to R1.
type handshake struct {
	w   *wire.Conn
	key []byte
	t   transcript
	e   wire.Encoder
}

// expect receives a frame of the handshake.
func (h *handshake) expect(typ uint16) (wire.Decoder, error) {
	head, err := h.w.Next()
	if err != nil {
		return wire.Decoder{}, err
	}
	meta, err := h.w.Meta()
	if err != nil {
		return wire.Decoder{}, err
	}
	d := wire.NewDecoder(meta)
	if head.Type == typeRefused && typ != typeHello && typ != typeProof {
		f, err := decodeFailure(&d)
		if err != nil {
			return d, err
		}
		return d, f.err()
	}
	if head.Type != typ || head.Flags != 0 {
		return d, protocolError("message %d in the handshake, expected %d", head.Type, typ)
	}
	return d, nil
}

// over ties the proofs to a TLS connection, which may have been left.
func (h *handshake) over(c *wire.TLSConn) (err error) {
	if c.Clear() {
		h.t.mode = modeClear
	}
	cs := c.ConnectionState()
	if cs.NegotiatedProtocol != alpn && cs.NegotiatedProtocol != alpnClear {
		return protocolError("TLS without the protocol %q", alpn)
	}
	h.t.binding, err = cs.ExportKeyingMaterial(exporterLabel, nil, 32)
	return err
}

func (h *handshake) send(typ uint16) error {
	err := h.w.Send(typ, 0, h.e.B)
	h.e.B = h.e.B[:0]
	return err
}

func (h *handshake) refuse(err error) error {
	h.e.B = h.e.B[:0]
	newFailure(err).encode(&h.e)
	_ = h.send(typeRefused) // it is closed anyway
	return err
}

func decodeHello(d *wire.Decoder) (m byte, nonce [nonceBytes]byte, err error) {
	m = d.Uint8()
	nonce = decode32(d)
	return m, nonce, d.Done()
}

// decode32 reads the 32 bytes of a nonce or a mac.
func decode32(d *wire.Decoder) (b [32]byte) {
	if p := d.Bytes(32); copy(b[:], p) != 32 {
		d.Fail("%d bytes, expected 32", len(p))
	}
	return b
}

func decodeWelcome(d *wire.Decoder) (mac [macBytes]byte, id string, err error) {
	mac = decode32(d)
	id = d.String(maxName)
	return mac, id, d.Done()
}

// greet is the server's side up to the client's proof.
func (h *handshake) greet(random io.Reader) error {
	d, err := h.expect(typeHello)
	if err != nil {
		var v *wire.VersionError
		if errors.As(err, &v) {
			return h.refuse(err) // our header tells our version
		}
		return err
	}
	m, nonce, err := decodeHello(&d)
	if err != nil {
		return err
	}
	if m != h.t.mode {
		return h.refuse(fmt.Errorf("the client speaks %s, this server %s: set both to the same", modeName(m), modeName(h.t.mode)))
	}
	h.t.client = nonce
	if _, err := io.ReadFull(random, h.t.server[:]); err != nil {
		return fmt.Errorf("nonce: %w", err)
	}
	h.e.Bytes(h.t.server[:])
	if err := h.send(typeChallenge); err != nil {
		return err
	}
	if d, err = h.expect(typeProof); err != nil {
		return err
	}
	mac := decode32(&d)
	if err := d.Done(); err != nil {
		return err
	}
	if !hmac.Equal(mac[:], h.t.mac(h.key, clientLabel, "")) {
		return h.refuse(fmt.Errorf("%w: the access key is not that of this device: take it from the device's registration", osd.ErrAuth))
	}
	return nil
}

// welcome ends the server's side.
func (h *handshake) welcome(id string) error {
	h.e.Bytes(h.t.mac(h.key, serverLabel, id))
	h.e.String(id)
	return h.send(typeWelcome)
}

// introduce is the client's side; it returns the identity of the device.
func (h *handshake) introduce(random io.Reader) (string, error) {
	if _, err := io.ReadFull(random, h.t.client[:]); err != nil {
		return "", fmt.Errorf("nonce: %w", err)
	}
	h.e.Uint8(h.t.mode)
	h.e.Bytes(h.t.client[:])
	if err := h.send(typeHello); err != nil {
		return "", err
	}
	d, err := h.expect(typeChallenge)
	if err != nil {
		return "", err
	}
	h.t.server = decode32(&d)
	if err := d.Done(); err != nil {
		return "", err
	}
	h.e.Bytes(h.t.mac(h.key, clientLabel, ""))
	if err := h.send(typeProof); err != nil {
		return "", err
	}
	if d, err = h.expect(typeWelcome); err != nil {
		return "", err
	}
	mac, id, err := decodeWelcome(&d)
	if err != nil {
		return "", err
	}
	if !hmac.Equal(mac[:], h.t.mac(h.key, serverLabel, id)) {
		return "", fmt.Errorf("%w: who answers does not know the access key: it is not the device, or its key was changed", osd.ErrAuth)
	}
	return id, nil
}
