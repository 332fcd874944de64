package control

import (
	"context"
	"net/mail"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/alert"
)

// Bounds of what is set of alerts: it is one record, and goes through every look.
const (
	maxAlertRules    = 64
	maxAlertChannels = 32
	maxSilences      = 256
	maxAlertCodes    = 32
	maxRecipients    = 32
	maxPattern       = 128
	maxAlertAfter    = 7 * 24 * time.Hour
	maxAlertRemind   = 90 * 24 * time.Hour
	minAlertRemind   = time.Minute
	maxSilence       = 366 * 24 * time.Hour
	maxWhy           = 256
	maxAlertCA       = 64 << 10
)

func ruleObject(name string) string    { return "alert rule " + clip(name) }
func channelObject(name string) string { return "alert channel " + clip(name) }

// AlertRules returns the rules in the order in which they decide.
func (c *Controller) AlertRules() []alert.Rule {
	var own, defaults []alert.Rule
	set := map[string]alert.Rule{}
	known := map[string]bool{}
	for _, d := range alert.Defaults() {
		known[d.Name] = true
	}
	for _, r := range c.model.Alerting().Rules {
		v := alert.Rule{
			Name: r.Name, Codes: r.Codes, Level: observe.Level(r.Level), After: time.Duration(r.AfterMs) * time.Millisecond,
			Remind: time.Duration(r.RemindMs) * time.Millisecond, Off: r.Off, Own: !known[r.Name],
		}
		if set[r.Name] = v; v.Own {
			own = append(own, v)
		}
	}
	for _, d := range alert.Defaults() {
		if v, ok := set[d.Name]; ok {
			d = v
		}
		defaults = append(defaults, d)
	}
	return append(own, defaults...)
}

// RuleChange is what changes of a rule; nil stays as it is.
type RuleChange struct {
	Codes         *[]string
	Level         *string
	After, Remind *time.Duration
	Off           *bool
}

// SetAlertRule changes a rule, or makes one, which decides before the defaults.
func (c *Controller) SetAlertRule(ctx context.Context, name string, in RuleChange) (alert.Rule, error) {
	if e := checkName("alert rule", name); e != nil {
		return alert.Rule{}, e
	}
	var out alert.Rule
	err := c.model.UpdateAlerting(ctx, func(a *model.Alerting) error {
		rules := c.AlertRules()
		i := slices.IndexFunc(rules, func(r alert.Rule) bool { return r.Name == name })
		out = alert.Rule{Name: name, Own: true, Remind: 24 * time.Hour}
		if i >= 0 {
			out = rules[i]
		} else if in.Codes == nil {
			return invalid("codes", ruleObject(name), "name the codes of causes that it is about, such as backend_*", "a new rule needs codes")
		}
		if in.Codes != nil {
			out.Codes = *in.Codes
		}
		setTo(&out.After, in.After)
		setTo(&out.Remind, in.Remind)
		setTo(&out.Off, in.Off)
		if in.Level != nil {
			out.Level = observe.Level(*in.Level)
		}
		if e := checkRule(out); e != nil {
			return e
		}
		rec := model.AlertRule{
			Name: name, Codes: out.Codes, Level: string(out.Level), AfterMs: out.After.Milliseconds(), RemindMs: out.Remind.Milliseconds(), Off: out.Off,
		}
		if at := slices.IndexFunc(a.Rules, func(r model.AlertRule) bool { return r.Name == name }); at >= 0 {
			a.Rules[at] = rec
			return nil
		}
		if len(a.Rules) >= maxAlertRules {
			return invalid("", ruleObject(name), "delete one that is not used", "there are %d rules already", len(a.Rules))
		}
		a.Rules = append(a.Rules, rec)
		return nil
	})
	if err != nil {
		return out, explain(ruleObject(name), err)
	}
	return out, nil
}

func setTo[T any](to *T, v *T) {
	if v != nil {
		*to = *v
	}
}

func checkRule(r alert.Rule) *Error {
	object := ruleObject(r.Name)
	switch {
	case len(r.Codes) == 0 || len(r.Codes) > maxAlertCodes:
		return invalid("codes", object, "name 1 to 32 codes of causes", "it has %d codes", len(r.Codes))
	case r.Level != "" && r.Level != observe.Warning && r.Level != observe.Bad:
		return invalid("level", object, "use warning, error, or nothing for both", "there is no level %q", clip(string(r.Level)))
	case r.After < 0 || r.After > maxAlertAfter:
		return invalid("afterMs", object, "use 0 to 7 days", "%s is not valid", r.After)
	case r.Remind != 0 && (r.Remind < minAlertRemind || r.Remind > maxAlertRemind):
		return invalid("remindMs", object, "use a minute to 90 days, or 0 for never", "%s is not valid", r.Remind)
	}
	for _, code := range r.Codes {
		if code == "" {
			return invalid("codes", object, "use * for any code", "a code is empty")
		}
		if e := checkPattern("codes", object, code); e != nil {
			return e
		}
	}
	return nil
}

func checkPattern(field, object, pattern string) *Error {
	if _, err := path.Match(pattern, ""); err != nil || len(pattern) > maxPattern {
		return invalid(field, object, "write a name with * for any text, at most 128 bytes", "%q is not a pattern", clip(pattern))
	}
	return nil
}

// ResetAlertRule takes back what was set of a rule: an own one is gone.
func (c *Controller) ResetAlertRule(ctx context.Context, name string) error {
	if !slices.ContainsFunc(c.model.Alerting().Rules, func(r model.AlertRule) bool { return r.Name == name }) {
		return nil
	}
	return explainOrNil(ruleObject(name), c.model.UpdateAlerting(ctx, func(a *model.Alerting) error {
		a.Rules = slices.DeleteFunc(a.Rules, func(r model.AlertRule) bool { return r.Name == name })
		return nil
	}))
}

func explainOrNil(object string, err error) error {
	if err == nil {
		return nil
	}
	return explain(object, err)
}

// CreateAlertChannel makes a channel. Its secret is sealed.
func (c *Controller) CreateAlertChannel(ctx context.Context, in model.AlertChannel, secret string) (model.AlertChannel, error) {
	object := channelObject(in.Name)
	if e := checkName("alert channel", in.Name); e != nil {
		return in, e
	}
	if e := checkChannel(in, secret); e != nil {
		e.Object = object
		return in, e
	}
	var err error
	if in.ID, err = model.NewUUID(); err != nil {
		return in, err
	}
	if in.Secret, err = c.opt.Sealer.Seal(in.ID, secret); err != nil {
		return in, err
	}
	in.Created = c.clock.Now().UTC()
	err = c.model.UpdateAlerting(ctx, func(a *model.Alerting) error {
		if slices.ContainsFunc(a.Channels, func(o model.AlertChannel) bool { return o.Name == in.Name }) {
			return &Error{Code: CodeExists, Field: "name", Object: object, Message: "a channel of this name exists", Hint: "choose another name"}
		}
		if len(a.Channels) >= maxAlertChannels {
			return invalid("", object, "delete one that is not used", "there are %d channels already", len(a.Channels))
		}
		a.Channels = append(a.Channels, in)
		return nil
	})
	return in, explainOrNil(object, err)
}

func checkChannel(in model.AlertChannel, secret string) *Error {
	if len(in.CA) > maxAlertCA {
		return invalid("ca", "", "use at most 64 KiB", "these are too many certificates")
	}
	if e := (alert.Channel{CA: in.CA}).Check(); e != nil {
		return invalid("ca", "", "give certificates in PEM", "%v", e)
	}
	switch in.Kind {
	case alert.KindWebhook:
		u, err := url.Parse(secret)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return invalid("secretUrl", "", "give it as https://HOST/PATH", "this is not the URL of a webhook")
		}
		if in.Format != "json" && in.Format != alert.FormatSlack {
			return invalid("format", "", "use json or slack", "there is no format %q", clip(in.Format))
		}
		return nil
	case alert.KindEmail:
		return checkMail(in, secret)
	}
	return invalid("kind", "", "use email or webhook", "there is no kind %q", clip(in.Kind))
}

func checkMail(in model.AlertChannel, secret string) *Error {
	switch {
	case in.Host == "" || strings.ContainsAny(in.Host, "/ \t\r\n@"):
		return invalid("host", "", "name the mail server's host", "this is not the name of a host")
	case in.Port < 1 || in.Port > 65535:
		return invalid("port", "", "use 587 with starttls, 465 with tls", "%d is not a port", in.Port)
	case !slices.Contains([]string{alert.StartTLS, alert.TLS, alert.Plain}, in.Security):
		return invalid("security", "", "use starttls, tls or none", "there is no security %q", clip(in.Security))
	case (in.User == "") != (secret == ""):
		return invalid("user", "", "give both, or neither", "a user and a password belong together")
	case secret != "" && in.Security == alert.Plain:
		return invalid("security", "", "use starttls or tls", "a password is not sent in the clear")
	case len(in.To) == 0 || len(in.To) > maxRecipients:
		return invalid("to", "", "give 1 to 32 addresses", "it has %d recipients", len(in.To))
	}
	for field, list := range map[string][]string{"from": {in.From}, "to": in.To} {
		for _, a := range list {
			if p, err := mail.ParseAddress(a); err != nil || p.Address != a || strings.ContainsAny(a, "\r\n\"") {
				return invalid(field, "", "write it as anna@example.org", "%q is not a mail address", clip(a))
			}
		}
	}
	return nil
}

// FindAlertChannel returns a channel by name or id.
func (c *Controller) FindAlertChannel(ref string) (model.AlertChannel, error) {
	for _, ch := range c.model.Alerting().Channels {
		if ch.Name == ref || ch.ID == ref {
			return ch, nil
		}
	}
	return model.AlertChannel{}, &Error{Code: CodeNotFound, Object: channelObject(ref), Message: "there is no such channel", Hint: "ovgate alert channel list shows the channels"}
}

// DeleteAlertChannel deletes a channel by name or id; an absent one is no error.
func (c *Controller) DeleteAlertChannel(ctx context.Context, ref string) error {
	if _, err := c.FindAlertChannel(ref); err != nil {
		return nil
	}
	return explainOrNil(channelObject(ref), c.model.UpdateAlerting(ctx, func(a *model.Alerting) error {
		a.Channels = slices.DeleteFunc(a.Channels, func(o model.AlertChannel) bool { return o.Name == ref || o.ID == ref })
		return nil
	}))
}

// OpenAlertChannel returns a channel as messages are sent to it, with its secret.
func (c *Controller) OpenAlertChannel(ch model.AlertChannel) (alert.Channel, error) {
	secret, err := c.opt.Sealer.Open(ch.ID, ch.Secret)
	return alert.Channel{
		ID: ch.ID, Name: ch.Name, Kind: ch.Kind, Secret: secret, CA: ch.CA, Format: ch.Format,
		Host: ch.Host, Port: ch.Port, Security: ch.Security, User: ch.User, From: ch.From, To: ch.To,
	}, err
}

// CreateSilence keeps alerts from being told until a time. Those that ended are forgotten.
func (c *Controller) CreateSilence(ctx context.Context, in model.Silence) (model.Silence, error) {
	const object = "silence"
	now := c.clock.Now()
	switch {
	case in.Code == "" && in.Object == "":
		return in, invalid("code", object, "name a code or an object; * is any", "it would silence everything")
	case !in.Until.After(now) || in.Until.Sub(now) > maxSilence:
		return in, invalid("untilAt", object, "name a time within a year", "%s is not valid", in.Until.Format(time.RFC3339))
	case strings.TrimSpace(in.Why) == "" || len(in.Why) > maxWhy:
		return in, invalid("why", object, "say why in 1 to 256 bytes", "the reason is missing or too long")
	}
	for field, p := range map[string]string{"code": in.Code, "object": in.Object} {
		if e := checkPattern(field, object, p); e != nil {
			return in, e
		}
	}
	var err error
	if in.ID, err = model.NewUUID(); err != nil {
		return in, err
	}
	in.Created = now.UTC()
	err = c.model.UpdateAlerting(ctx, func(a *model.Alerting) error {
		a.Silences = slices.DeleteFunc(a.Silences, func(s model.Silence) bool { return !now.Before(s.Until) })
		if len(a.Silences) >= maxSilences {
			return invalid("", object, "delete one that is not needed", "there are %d silences already", len(a.Silences))
		}
		a.Silences = append(a.Silences, in)
		return nil
	})
	return in, explainOrNil(object, err)
}

// Silences returns those that last.
func (c *Controller) Silences() []model.Silence {
	now := c.clock.Now()
	return slices.DeleteFunc(c.model.Alerting().Silences, func(s model.Silence) bool { return !now.Before(s.Until) })
}

// DeleteSilence ends a silence; an absent one is no error.
func (c *Controller) DeleteSilence(ctx context.Context, id string) error {
	if !slices.ContainsFunc(c.model.Alerting().Silences, func(s model.Silence) bool { return s.ID == id }) {
		return nil
	}
	return explainOrNil("silence "+clip(id), c.model.UpdateAlerting(ctx, func(a *model.Alerting) error {
		a.Silences = slices.DeleteFunc(a.Silences, func(s model.Silence) bool { return s.ID == id })
		return nil
	}))
}

// AlertConfig returns what is set of alerts. A channel whose secret does not open is left out,
// and told to bad.
func (c *Controller) AlertConfig(bad func(channel string, err error)) alert.Config {
	out := alert.Config{Rules: c.AlertRules()}
	a := c.model.Alerting()
	for _, s := range a.Silences {
		out.Silences = append(out.Silences, alert.Silence{Code: s.Code, Object: s.Object, Until: s.Until})
	}
	for _, ch := range a.Channels {
		v, err := c.OpenAlertChannel(ch)
		if err != nil {
			bad(ch.Name, err)
			continue
		}
		out.Channels = append(out.Channels, v)
	}
	return out
}
