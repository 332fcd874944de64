package alert

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/smtp"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Kinds of channels.
const (
	KindEmail   = "email"
	KindWebhook = "webhook"
)

// How a mail server is spoken to.
const (
	StartTLS = "starttls" // refused by a server without it
	TLS      = "tls"      // from the first byte
	Plain    = "none"     // no sign-in but on this machine
)

// FormatSlack is the format of webhooks that Slack and what speaks like it take; else JSON.
const FormatSlack = "slack"

// Channel is where messages go.
type Channel struct {
	ID, Name, Kind string
	// Secret is the password for the mail server (empty: no sign-in), or the webhook's URL.
	Secret string
	CA     string // certificates in PEM to trust in place of the system's
	Format string // of a webhook

	Host, Security, User, From string // of mail
	Port                       int
	To                         []string
}

// Item is an alert in a message.
type Item struct {
	State  string    `json:"state"` // warning, error, or over
	Code   string    `json:"code"`
	Object string    `json:"object"`
	Text   string    `json:"text"`
	Hint   string    `json:"hint"`
	Since  time.Time `json:"since"`
}

// Message is what a channel is told at once.
type Message struct {
	Subject string `json:"subject"`
	Text    string `json:"text"`
	Items   []Item `json:"alerts"`
}

func messageOf(alerts []Alert) Message {
	m := Message{Items: make([]Item, 0, len(alerts))}
	bad := 0
	var b strings.Builder
	for _, a := range alerts {
		if a.state() != over {
			bad++
		}
		m.Items = append(m.Items, Item{a.state(), a.Code, a.Object, a.Text, a.Hint, a.Since})
		fmt.Fprintf(&b, "%s: %s\n  %s, since %s\n", strings.ToUpper(a.state()), a.Text, a.Object, a.Since.Format(time.RFC3339))
		if a.Hint != "" && a.state() != over {
			fmt.Fprintf(&b, "  Remedy: %s\n", a.Hint)
		}
		b.WriteByte('\n')
	}
	m.Text = b.String()
	switch {
	case len(alerts) == 1:
		m.Subject = "ovgate: " + alerts[0].state() + ": " + alerts[0].Text
	case bad == 0:
		m.Subject = fmt.Sprintf("ovgate: %d problems are over", len(alerts))
	default:
		m.Subject = fmt.Sprintf("ovgate: %d problems, %d over", bad, len(alerts)-bad)
	}
	return m
}

// Send delivers a message. It ends with ctx, and its error names no secret (A4).
func Send(ctx context.Context, c Channel, m Message) error {
	if c.Kind == KindWebhook {
		return sendHook(ctx, c, m)
	}
	return sendMail(ctx, c, m)
}

// config returns how a server's certificate is verified.
func (c Channel) config(host string) (*tls.Config, error) {
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM([]byte(c.CA)) {
			return nil, errors.New("the certificates to trust are damaged")
		}
	}
	return t, nil
}

// answerMost bounds what is read of an answer.
const answerMost = 512

func sendHook(ctx context.Context, c Channel, m Message) error {
	var v any = m
	if c.Format == FormatSlack {
		v = map[string]string{"text": "*" + slack(m.Subject) + "*\n" + slack(m.Text)}
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Secret, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL of the webhook is not understood")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "ovgate")
	config, err := c.config(r.URL.Hostname())
	if err != nil {
		return err
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	// A redirect would send the message to somebody else.
	client := http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(r)
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err // without the URL
	}
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, answerMost))
	if err != nil {
		text = nil
	}
	return fmt.Errorf("it answers %s: %s", res.Status, oneLine(string(text)))
}

// slack hides what has a meaning in Slack's text.
func slack(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// oneLine bounds a text of somebody else.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	if r := []rune(s); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return s
}

func sendMail(ctx context.Context, c Channel, m Message) (err error) {
	config, err := c.config(c.Host)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	if err != nil {
		return err
	}
	// Whatever the server does not answer ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if !stop() && err != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
	}()
	if c.Security == TLS {
		conn = tls.Client(conn, config)
	}
	s, err := smtp.NewClient(conn, c.Host)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	defer func() { _ = s.Close() }()
	if c.Security == StartTLS {
		if ok, _ := s.Extension("STARTTLS"); !ok {
			return errors.New("the mail server offers no STARTTLS: use its TLS port with tls, or none on a network that is trusted")
		}
		if err := s.StartTLS(config); err != nil {
			return err
		}
	}
	if c.Secret != "" {
		if err := s.Auth(smtp.PlainAuth("", c.User, c.Secret, c.Host)); err != nil {
			return fmt.Errorf("sign-in at the mail server: %w", err)
		}
	}
	if err := s.Mail(c.From); err != nil {
		return err
	}
	for _, to := range c.To {
		if err := s.Rcpt(to); err != nil {
			return fmt.Errorf("%s: %w", to, err)
		}
	}
	w, err := s.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(mail(c, m)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err // refused, or nobody knows
	}
	_ = s.Quit() // it took the message
	return nil
}

// mail writes a message as RFC 5322 has it.
func mail(c Channel, m Message) []byte {
	var b bytes.Buffer
	header := func(name, v string) { fmt.Fprintf(&b, "%s: %s\r\n", name, v) }
	header("From", c.From)
	header("To", strings.Join(c.To, ", "))
	header("Subject", mime.QEncoding.Encode("utf-8", oneLine(m.Subject)))
	header("Date", time.Now().UTC().Format(time.RFC1123Z))
	header("Message-ID", "<"+rand.Text()+"@ovgate>")
	header("Auto-Submitted", "auto-generated") // RFC 3834: no reply of a machine
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "base64")
	b.WriteString("\r\n")
	const line = 76 // RFC 2045
	text := base64.StdEncoding.EncodeToString([]byte(m.Text))
	for len(text) > 0 {
		n := min(len(text), line)
		b.WriteString(text[:n] + "\r\n")
		text = text[n:]
	}
	return b.Bytes()
}

// Check tells what is wrong with the certificates of a channel.
func (c Channel) Check() error {
	_, err := c.config("")
	return err
}
