package api

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
)

// ListMetrics lists the metrics that thresholds can be set for.
func (s *Server) ListMetrics(_ context.Context, r ListMetricsRequestObject) (ListMetricsResponseObject, error) {
	rows := []Metric{}
	for _, m := range observe.Metrics() {
		if matches(r.Params.Q, m.Name, nil) {
			rows = append(rows, Metric{Name: m.Name, Unit: MetricUnit(m.Unit), Means: m.Means})
		}
	}
	items, next, err := page(rows, func(m Metric) model.Keys { return model.Keys{Text: m.Name, ID: m.Name} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListMetrics200JSONResponse{items, next}, err
}

func thresholdOf(t observe.Threshold) Threshold {
	m, _ := observe.MetricOf(t.Metric)
	v := Threshold{
		Name: t.Name, Metric: t.Metric, Unit: MetricUnit(m.Unit), Object: t.Object, Compare: ThresholdCompareAbove, Value: t.Value, Clear: t.Clear,
		ForMs: t.For.Milliseconds(), Level: AlertLevel(t.Level), Off: t.Off, Own: t.Own,
	}
	if t.Below {
		v.Compare = ThresholdCompareBelow
	}
	return v
}

// ListThresholds lists the thresholds by name.
func (s *Server) ListThresholds(_ context.Context, r ListThresholdsRequestObject) (ListThresholdsResponseObject, error) {
	rows := []Threshold{}
	for _, t := range s.opt.Control.Thresholds() {
		if matches(r.Params.Q, t.Name+" "+t.Metric, nil) {
			rows = append(rows, thresholdOf(t))
		}
	}
	items, next, err := page(rows, func(t Threshold) model.Keys { return model.Keys{Text: t.Name, ID: t.Name} }, "name", false, r.Params.Cursor, r.Params.Limit)
	return ListThresholds200JSONResponse{items, next}, err
}

// SetThreshold changes a threshold, or makes one.
func (s *Server) SetThreshold(ctx context.Context, r SetThresholdRequestObject) (SetThresholdResponseObject, error) {
	b := r.Body
	in := control.ThresholdChange{Metric: b.Metric, Object: b.Object, Value: b.Value, Clear: b.Clear, For: millis(b.ForMs), Off: b.Off}
	if b.Compare != nil {
		in.Below = new(*b.Compare == ThresholdCompareBelow)
	}
	if b.Level != nil {
		in.Level = new(string(*b.Level))
	}
	t, err := s.opt.Control.SetThreshold(ctx, r.Threshold, in)
	if err != nil {
		return nil, err
	}
	return SetThreshold200JSONResponse(thresholdOf(t)), nil
}

// ResetThreshold takes back what was set of a threshold.
func (s *Server) ResetThreshold(ctx context.Context, r ResetThresholdRequestObject) (ResetThresholdResponseObject, error) {
	if err := s.opt.Control.ResetThreshold(ctx, r.Threshold); err != nil {
		return nil, err
	}
	return ResetThreshold204Response{}, nil
}
