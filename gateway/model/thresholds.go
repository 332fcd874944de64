package model

import (
	"context"
	"errors"
	"slices"
)

// thresholdsKey is the only row of its table.
const thresholdsKey = "all"

// Thresholds is what people set of thresholds of metrics: own ones, and defaults that were
// changed. One record, because it is small and changes seldom.
type Thresholds struct {
	Format int         `json:"format"`
	Rules  []Threshold `json:"rules,omitempty"`

	Rev int64 `json:"-"`
}

// Threshold tells when a metric is above or below a value (observe.Threshold).
type Threshold struct {
	Name   string  `json:"name"`
	Metric string  `json:"metric"`
	Object string  `json:"object,omitempty"` // pattern; empty: any
	Below  bool    `json:"below,omitempty"`
	Value  float64 `json:"value"` // in the metric's unit, as Clear
	Clear  float64 `json:"clear"`
	ForMs  int64   `json:"forMs"`
	Level  string  `json:"level"`
	Off    bool    `json:"off,omitempty"`
}

func (t Thresholds) key() string      { return thresholdsKey }
func (t Thresholds) unique() []string { return nil }
func (t Thresholds) format() int      { return t.Format }
func (t Thresholds) rev() int64       { return t.Rev }
func (t Thresholds) clone(rev int64) Thresholds {
	t.Rev, t.Rules = rev, slices.Clone(t.Rules)
	return t
}

// Thresholds returns what is set of thresholds.
func (s *Store) Thresholds() Thresholds {
	t, _ := s.thresholds.get(thresholdsKey)
	return t
}

// UpdateThresholds changes what is set of thresholds through fn, which may run more than once;
// an error of fn is returned and nothing changes.
func (s *Store) UpdateThresholds(ctx context.Context, fn func(*Thresholds) error) error {
	var err error
	for range alertingTries {
		if _, ok := s.thresholds.get(thresholdsKey); ok {
			_, err = s.thresholds.update(ctx, thresholdsKey, func(t *Thresholds) error {
				t.Format = Format
				return fn(t)
			})
		} else {
			t := Thresholds{Format: Format}
			if err := fn(&t); err != nil {
				return err
			}
			_, err = s.thresholds.insert(ctx, t, nil)
		}
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrExists) {
			return err
		}
		s.thresholds.reload(thresholdsKey) // memory may be behind (M8)
	}
	return err
}
