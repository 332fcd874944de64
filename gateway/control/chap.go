package control

import (
	"fmt"
	"io"

	"github.com/openvstorage/ovgate/gateway/model"
)

// Credentials are what a group proves and is proved, in plain. Empty: nothing.
type Credentials struct {
	User, Secret             string
	MutualUser, MutualSecret string
}

// Lengths of CHAP secrets, in bytes: 12 is what RFC 7143 section 12.1.3 asks for
// (96 bits), 255 what any initiator takes at most, 16 what Windows does.
const (
	minSecret     = 12
	maxSecret     = 255
	windowsSecret = 16
	maxUser       = 255
)

// Alphabets of drawn CHAP secrets, which every initiator takes. Letters and
// digits need no quoting in any shell or URL. The first is no hexadecimal digit,
// because "user%secret" in a libiscsi URL would otherwise look like a percent
// escape; ambiguous signs are left out.
const (
	secretLength = windowsSecret
	secretFirst  = "ghjkmnpqrstuvwxyzGHJKLMNPQRSTUVWXYZ"
	secretRest   = "23456789abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"
)

// newSecret draws a CHAP secret of more than 90 bits.
func newSecret(random io.Reader) (string, error) {
	out := make([]byte, 0, secretLength)
	var b [1]byte
	for len(out) < secretLength {
		set := secretRest
		if len(out) == 0 {
			set = secretFirst
		}
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return "", fmt.Errorf("draw a CHAP secret: %w", err)
		}
		// Values above the last whole multiple of the set would favour its
		// first characters.
		if n := len(set); int(b[0]) < 256/n*n {
			out = append(out, set[int(b[0])%n])
		}
	}
	return string(out), nil
}

// openCredentials returns the secrets of a group in plain; ErrSeal with another key.
func (c *Controller) openCredentials(t Target, g model.Group) (Credentials, error) {
	creds := Credentials{User: g.CHAPUser, MutualUser: g.MutualUser}
	if g.CHAPUser == "" {
		return creds, nil
	}
	var err error
	if creds.Secret, err = c.opt.Sealer.Open(t.ID, g.CHAPSecret); err == nil && g.MutualUser != "" {
		creds.MutualSecret, err = c.opt.Sealer.Open(t.ID, g.MutualSecret)
	}
	if err != nil {
		return creds, &Error{Code: CodeInternal, Object: t.object(), Message: "group " + g.Name + ": " + err.Error(), Hint: "bring back seal.key, or give the group a new secret: --rotate-secret", Err: err}
	}
	return creds, nil
}

// changeCredentials gives a group the credentials that in asks for, and returns
// the secrets that it drew.
func (c *Controller) changeCredentials(t Target, g *model.Group, in GroupChange) (Credentials, error) {
	if err := checkCredentials(t, in); err != nil {
		return Credentials{}, err
	}
	if wanted := in.CHAP == nil && g.CHAPUser != "" || in.CHAP != nil && *in.CHAP || in.Secret != nil || in.User != nil; !wanted {
		if in.Mutual != nil && *in.Mutual || in.MutualSecret != nil {
			return Credentials{}, invalid("mutual", t.object(), "let the group use CHAP", "group %s demands no CHAP, so the target cannot prove itself", g.Name)
		}
		if g.Any {
			return Credentials{}, invalid("chap", t.object(), "let the group use CHAP, or name the initiators", "group %s would admit anybody without a proof", g.Name)
		}
		g.CHAPUser, g.CHAPSecret, g.MutualUser, g.MutualSecret = "", nil, "", nil
		return Credentials{}, nil
	}
	if in.User != nil {
		g.CHAPUser = *in.User
	}
	if g.CHAPUser == "" {
		g.CHAPUser = defaultUser(t, g.Name)
	}
	var drawn Credentials
	var err error
	drawn.Secret, err = c.setSecret(t, &g.CHAPSecret, in.Secret, in.Rotate)
	if err != nil {
		return Credentials{}, err
	}
	if drawn.Secret != "" {
		drawn.User = g.CHAPUser
	}
	drawn.MutualSecret, err = c.changeMutual(t, g, in)
	if err != nil {
		return Credentials{}, err
	}
	if drawn.MutualSecret != "" {
		drawn.MutualUser = g.MutualUser
	}
	return drawn, c.differ(t, *g, in)
}

// changeMutual gives a group what the target proves, and returns a drawn secret.
func (c *Controller) changeMutual(t Target, g *model.Group, in GroupChange) (string, error) {
	if wanted := in.Mutual == nil && g.MutualUser != "" || in.Mutual != nil && *in.Mutual || in.MutualSecret != nil || in.MutualUser != nil; !wanted {
		g.MutualUser, g.MutualSecret = "", nil
		return "", nil
	}
	if in.MutualUser != nil {
		g.MutualUser = *in.MutualUser
	}
	if g.MutualUser == "" {
		g.MutualUser = defaultUser(t, g.Name) + "-target"
	}
	return c.setSecret(t, &g.MutualSecret, in.MutualSecret, in.Rotate)
}

// defaultUser is the CHAP name of a group that was given none.
func defaultUser(t Target, group string) string {
	if group == model.DefaultGroup {
		return iqnPart(t.Name)
	}
	return iqnPart(t.Name) + "-" + group
}

// setSecret seals what is given or, when there is none or rotate is set, drawn;
// it returns a drawn one.
func (c *Controller) setSecret(t Target, sealed *[]byte, given *string, rotate bool) (string, error) {
	var secret, drawn string
	switch {
	case given != nil:
		secret = *given
	case *sealed != nil && !rotate:
		return "", nil
	default:
		var err error
		if secret, err = newSecret(c.opt.Rand); err != nil {
			return "", err
		}
		drawn = secret
	}
	b, err := c.opt.Sealer.Seal(t.ID, secret)
	if err != nil {
		return "", err
	}
	*sealed = b
	return drawn, nil
}

// differ refuses equal secrets (RFC 7143 section 9.2.1) when one was given.
func (c *Controller) differ(t Target, g model.Group, in GroupChange) error {
	if g.MutualUser == "" || in.Secret == nil && in.MutualSecret == nil {
		return nil
	}
	creds, err := c.openCredentials(t, g)
	if err == nil && creds.Secret == creds.MutualSecret {
		return invalid("mutualSecret", t.object(), "use two secrets", "the secret of the initiators and that of the target are the same")
	}
	return err
}

// checkCredentials checks given names and secrets; it never repeats a secret.
func checkCredentials(t Target, in GroupChange) error {
	for _, s := range []struct {
		field, what string
		v           *string
		min, max    int
	}{
		{"chapUser", "a CHAP name", in.User, 1, maxUser},
		{"mutualUser", "a CHAP name", in.MutualUser, 1, maxUser},
		{"chapSecret", "a CHAP secret", in.Secret, minSecret, maxSecret},
		{"mutualSecret", "a CHAP secret", in.MutualSecret, minSecret, maxSecret},
	} {
		if s.v == nil {
			continue
		}
		if n := len(*s.v); n < s.min || n > s.max {
			return invalid(s.field, t.object(), fmt.Sprintf("use %d to %d characters", s.min, s.max), "%s of %d characters is not taken", s.what, n)
		}
		for _, r := range *s.v {
			if r < ' ' || r > '~' {
				return invalid(s.field, t.object(), "use letters, digits and signs of ASCII", "%s may have printable characters only", s.what)
			}
		}
	}
	return nil
}
