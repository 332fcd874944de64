package api

import (
	"context"
	"net/http"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/alert"
)

// ListAlerts lists what is followed, the newest first.
func (s *Server) ListAlerts(ctx context.Context, r ListAlertsRequestObject) (ListAlertsResponseObject, error) {
	var rows []Alert
	if s.opt.Alerts != nil {
		alerts, err := s.opt.Alerts.Alerts(ctx)
		if err != nil {
			return nil, err
		}
		for _, a := range alerts {
			if matches(r.Params.Q, a.Code+" "+a.Object, nil) {
				rows = append(rows, s.alertOf(a))
			}
		}
	}
	keys := func(a Alert) model.Keys {
		return model.Keys{Text: a.Since.Format(time.RFC3339Nano), ID: a.Code + " " + a.Object}
	}
	items, next, err := page(rows, keys, "since", true, r.Params.Cursor, r.Params.Limit)
	return ListAlerts200JSONResponse{items, next}, err
}

func (s *Server) alertOf(a alert.Alert) Alert {
	out := Alert{Code: a.Code, Object: a.Object, State: AlertStatePending, Level: HealthState(a.Level), Text: a.Text, Hint: a.Hint, Rule: a.Rule, Since: a.Since}
	switch {
	case !a.Ended.IsZero():
		out.State, out.EndedAt = AlertStateOver, new(a.Ended)
	case !a.Fired.IsZero():
		out.State = AlertStateFiring
	}
	if !a.Fired.IsZero() {
		out.FiredAt = new(a.Fired)
	}
	return out
}

func ruleOf(r alert.Rule) AlertRule {
	v := AlertRule{Name: r.Name, Codes: append([]string{}, r.Codes...), AfterMs: r.After.Milliseconds(), RemindMs: r.Remind.Milliseconds(), Off: r.Off, Own: r.Own}
	if r.Level != "" {
		v.Level = new(AlertLevel(r.Level))
	}
	return v
}

// ListAlertRules lists the rules, in the order in which they decide.
func (s *Server) ListAlertRules(_ context.Context, r ListAlertRulesRequestObject) (ListAlertRulesResponseObject, error) {
	rows := []AlertRule{}
	for _, v := range s.opt.Control.AlertRules() {
		if matches(r.Params.Q, v.Name, nil) {
			rows = append(rows, ruleOf(v))
		}
	}
	place := map[string]int64{}
	for i, v := range rows {
		place[v.Name] = int64(i)
	}
	items, next, err := page(rows, func(v AlertRule) model.Keys { return model.Keys{Number: float64(place[v.Name]), ID: v.Name} }, "place", false, r.Params.Cursor, r.Params.Limit)
	return ListAlertRules200JSONResponse{items, next}, err
}

// SetAlertRule changes a rule, or makes one.
func (s *Server) SetAlertRule(ctx context.Context, r SetAlertRuleRequestObject) (SetAlertRuleResponseObject, error) {
	b := r.Body
	in := control.RuleChange{Codes: b.Codes, Off: b.Off, After: millis(b.AfterMs), Remind: millis(b.RemindMs)}
	if b.Level != nil {
		in.Level = new(string(*b.Level))
	}
	v, err := s.opt.Control.SetAlertRule(ctx, r.Rule, in)
	if err != nil {
		return nil, err
	}
	return SetAlertRule200JSONResponse(ruleOf(v)), nil
}

// ResetAlertRule takes back what was set of a rule.
func (s *Server) ResetAlertRule(ctx context.Context, r ResetAlertRuleRequestObject) (ResetAlertRuleResponseObject, error) {
	if err := s.opt.Control.ResetAlertRule(ctx, r.Rule); err != nil {
		return nil, err
	}
	return ResetAlertRule204Response{}, nil
}

func channelOf(c model.AlertChannel) AlertChannel {
	return AlertChannel{
		ID: c.ID, Name: c.Name, Kind: AlertChannelKind(c.Kind), Format: c.Format, Host: c.Host, Port: c.Port, Security: c.Security,
		User: c.User, From: c.From, To: append([]string{}, c.To...), Ca: c.CA, HasSecret: len(c.Secret) > 0, Created: c.Created,
	}
}

// ListAlertChannels lists the channels by name, without their secrets.
func (s *Server) ListAlertChannels(_ context.Context, r ListAlertChannelsRequestObject) (ListAlertChannelsResponseObject, error) {
	rows := []AlertChannel{}
	for _, c := range s.opt.Model.Alerting().Channels {
		if matches(r.Params.Q, c.Name, nil) {
			rows = append(rows, channelOf(c))
		}
	}
	items, next, err := page(rows, func(c AlertChannel) model.Keys { return model.Keys{Text: c.Name, ID: c.ID} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListAlertChannels200JSONResponse{items, next}, err
}

// CreateAlertChannel makes a channel.
func (s *Server) CreateAlertChannel(ctx context.Context, r CreateAlertChannelRequestObject) (CreateAlertChannelResponseObject, error) {
	b := r.Body
	in := model.AlertChannel{
		Name: b.Name, Kind: string(b.Kind), Host: value(b.Host), Port: value(b.Port), User: value(b.User), From: value(b.From), To: value(b.To), CA: value(b.Ca),
	}
	secret := value(b.Secret)
	if in.Kind == alert.KindWebhook {
		secret, in.Format = value(b.SecretURL), "json"
		if b.Format != nil {
			in.Format = string(*b.Format)
		}
	} else {
		in.Security = alert.StartTLS
		if b.Security != nil {
			in.Security = string(*b.Security)
		}
	}
	c, err := s.opt.Control.CreateAlertChannel(ctx, in, secret)
	if err != nil {
		return nil, err
	}
	return CreateAlertChannel201JSONResponse(channelOf(c)), nil
}

// DeleteAlertChannel deletes a channel.
func (s *Server) DeleteAlertChannel(ctx context.Context, r DeleteAlertChannelRequestObject) (DeleteAlertChannelResponseObject, error) {
	if err := s.opt.Control.DeleteAlertChannel(ctx, r.Channel); err != nil {
		return nil, err
	}
	return DeleteAlertChannel204Response{}, nil
}

// TestAlertChannel sends a message to a channel.
func (s *Server) TestAlertChannel(ctx context.Context, r TestAlertChannelRequestObject) (TestAlertChannelResponseObject, error) {
	rec, err := s.opt.Control.FindAlertChannel(r.Channel)
	if err != nil {
		return nil, err
	}
	object := "alert channel " + rec.Name
	c, err := s.opt.Control.OpenAlertChannel(rec)
	if err != nil || s.opt.Alerts == nil {
		return nil, refuse(http.StatusConflict, "invalid", object, "delete the channel and make it anew", "its secret does not open with this node's seal.key")
	}
	if err := s.opt.Alerts.Test(ctx, c, callerOf(ctx).Name); err != nil {
		return nil, refuse(http.StatusServiceUnavailable, "backend_unavailable", object, "check address and credentials; delete the channel and make it anew to change them", "the message was not delivered: %s", clipText(err.Error()))
	}
	return TestAlertChannel204Response{}, nil
}

// clipText bounds what a server elsewhere said.
func clipText(s string) string {
	const most = 400
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

func silenceOf(v model.Silence) Silence {
	return Silence{ID: v.ID, Code: v.Code, Object: v.Object, UntilAt: v.Until, By: v.By, Why: v.Why, Created: v.Created}
}

// ListSilences lists the silences that last, the one that ends first in front.
func (s *Server) ListSilences(_ context.Context, r ListSilencesRequestObject) (ListSilencesResponseObject, error) {
	rows := []Silence{}
	for _, v := range s.opt.Control.Silences() {
		if matches(r.Params.Q, v.Code+" "+v.Object+" "+v.Why, nil) {
			rows = append(rows, silenceOf(v))
		}
	}
	keys := func(v Silence) model.Keys {
		return model.Keys{Text: v.UntilAt.UTC().Format(time.RFC3339Nano), ID: v.ID}
	}
	items, next, err := page(rows, keys, "until", false, r.Params.Cursor, r.Params.Limit)
	return ListSilences200JSONResponse{items, next}, err
}

// CreateSilence keeps alerts from being told until a time.
func (s *Server) CreateSilence(ctx context.Context, r CreateSilenceRequestObject) (CreateSilenceResponseObject, error) {
	v, err := s.opt.Control.CreateSilence(ctx, model.Silence{
		Code: value(r.Body.Code), Object: value(r.Body.Object), Until: r.Body.UntilAt.UTC(), By: callerOf(ctx).Name, Why: r.Body.Why,
	})
	if err != nil {
		return nil, err
	}
	return CreateSilence201JSONResponse(silenceOf(v)), nil
}

// DeleteSilence ends a silence.
func (s *Server) DeleteSilence(ctx context.Context, r DeleteSilenceRequestObject) (DeleteSilenceResponseObject, error) {
	if err := s.opt.Control.DeleteSilence(ctx, r.Silence); err != nil {
		return nil, err
	}
	return DeleteSilence204Response{}, nil
}
