package model

import (
	"context"
	"errors"
	"slices"
	"time"
)

// alertingKey is the only row of its table.
const alertingKey = "all"

// Alerting is what people set of alerts: one record, because it is small and changes seldom.
type Alerting struct {
	Format   int            `json:"format"`
	Rules    []AlertRule    `json:"rules,omitempty"` // own ones, and defaults that were changed
	Channels []AlertChannel `json:"channels,omitempty"`
	Silences []Silence      `json:"silences,omitempty"`

	Rev int64 `json:"-"`
}

// AlertRule says which causes of health are told, and when (observe/alert.Rule).
type AlertRule struct {
	Name     string   `json:"name"`
	Codes    []string `json:"codes"`
	Level    string   `json:"level,omitempty"`
	AfterMs  int64    `json:"afterMs"`
	RemindMs int64    `json:"remindMs"`
	Off      bool     `json:"off,omitempty"`
}

// AlertChannel is where alerts go (observe/alert.Channel).
type AlertChannel struct {
	ID       string   `json:"id"` // UUID
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Format   string   `json:"format,omitempty"`
	Host     string   `json:"host,omitempty"`
	Port     int      `json:"port,omitempty"`
	Security string   `json:"security,omitempty"`
	User     string   `json:"user,omitempty"`
	From     string   `json:"from,omitempty"`
	To       []string `json:"to,omitempty"`
	CA       string   `json:"ca,omitempty"`
	// Secret is the password for the mail server or the URL of the webhook, sealed with ID.
	Secret  []byte    `json:"secret,omitempty"`
	Created time.Time `json:"created"`
}

// Silence keeps alerts from being told until a time.
type Silence struct {
	ID      string    `json:"id"`
	Code    string    `json:"code,omitempty"`   // pattern; empty: any
	Object  string    `json:"object,omitempty"` // pattern; empty: any
	Until   time.Time `json:"until"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
	Created time.Time `json:"created"`
}

func (a Alerting) key() string      { return alertingKey }
func (a Alerting) unique() []string { return nil }
func (a Alerting) format() int      { return a.Format }
func (a Alerting) rev() int64       { return a.Rev }
func (a Alerting) clone(rev int64) Alerting {
	a.Rev = rev
	// What an element points to is never changed once it is stored.
	a.Rules, a.Channels, a.Silences = slices.Clone(a.Rules), slices.Clone(a.Channels), slices.Clone(a.Silences)
	return a
}

// Alerting returns what is set of alerts.
func (s *Store) Alerting() Alerting {
	a, _ := s.alerting.get(alertingKey)
	return a
}

// alertingTries bounds how often a change is tried that another node's came before.
const alertingTries = 5

// UpdateAlerting changes what is set of alerts through fn, which may run more than once; an
// error of fn is returned and nothing changes.
func (s *Store) UpdateAlerting(ctx context.Context, fn func(*Alerting) error) error {
	var err error
	for range alertingTries {
		if _, ok := s.alerting.get(alertingKey); ok {
			_, err = s.alerting.update(ctx, alertingKey, func(a *Alerting) error {
				a.Format = Format
				return fn(a)
			})
		} else {
			a := Alerting{Format: Format}
			if err := fn(&a); err != nil {
				return err
			}
			_, err = s.alerting.insert(ctx, a, nil)
		}
		if !errors.Is(err, ErrConflict) {
			return err
		}
		s.alerting.reload(alertingKey) // memory may be behind (M8)
	}
	return err
}
