package control

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
)

// Bounds of thresholds: each is compared with each object at each look.
const (
	maxThresholds   = 64
	maxThresholdFor = 7 * 24 * time.Hour
	// maxThresholdValue is beyond what any metric can be: an hour in us is 4e9, and no node
	// moves an exabyte a second.
	maxThresholdValue = 1e18
)

func thresholdObject(name string) string { return "threshold " + clip(name) }

// Thresholds returns the thresholds by name: the defaults, as they were changed, and own ones.
func (c *Controller) Thresholds() []observe.Threshold {
	all := map[string]observe.Threshold{}
	for _, t := range observe.DefaultThresholds() {
		all[t.Name] = t
	}
	for _, r := range c.model.Thresholds().Rules {
		_, known := all[r.Name]
		all[r.Name] = observe.Threshold{
			Name: r.Name, Metric: r.Metric, Object: r.Object, Below: r.Below, Value: r.Value, Clear: r.Clear,
			For: time.Duration(r.ForMs) * time.Millisecond, Level: observe.Level(r.Level), Off: r.Off, Own: !known,
		}
	}
	out := make([]observe.Threshold, 0, len(all))
	for _, t := range all {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b observe.Threshold) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// ThresholdChange is what changes of a threshold; nil stays as it is. With a Value and no
// Clear the threshold has no hysteresis.
type ThresholdChange struct {
	Metric, Object, Level *string
	Below, Off            *bool
	Value, Clear          *float64
	For                   *time.Duration
}

// SetThreshold changes a threshold, or makes one.
func (c *Controller) SetThreshold(ctx context.Context, name string, in ThresholdChange) (observe.Threshold, error) {
	if e := checkName("threshold", name); e != nil {
		return observe.Threshold{}, e
	}
	var out observe.Threshold
	err := c.model.UpdateThresholds(ctx, func(t *model.Thresholds) error {
		all := c.Thresholds()
		i := slices.IndexFunc(all, func(t observe.Threshold) bool { return t.Name == name })
		out = observe.Threshold{Name: name, Own: true, For: 5 * time.Minute, Level: observe.Warning}
		if i >= 0 {
			out = all[i]
		} else if in.Metric == nil || in.Value == nil {
			return invalid("metric", thresholdObject(name), "name a metric and a value; ovgate alert threshold metrics lists the metrics", "a new threshold needs both")
		}
		setTo(&out.Metric, in.Metric)
		setTo(&out.Object, in.Object)
		setTo(&out.Below, in.Below)
		setTo(&out.Off, in.Off)
		setTo(&out.For, in.For)
		setTo(&out.Value, in.Value)
		setTo(&out.Clear, in.Value)
		setTo(&out.Clear, in.Clear)
		if in.Level != nil {
			out.Level = observe.Level(*in.Level)
		}
		if e := checkThreshold(out); e != nil {
			return e
		}
		rec := model.Threshold{
			Name: name, Metric: out.Metric, Object: out.Object, Below: out.Below, Value: out.Value, Clear: out.Clear,
			ForMs: out.For.Milliseconds(), Level: string(out.Level), Off: out.Off,
		}
		if at := slices.IndexFunc(t.Rules, func(r model.Threshold) bool { return r.Name == name }); at >= 0 {
			t.Rules[at] = rec
			return nil
		}
		if len(t.Rules) >= maxThresholds {
			return invalid("", thresholdObject(name), "delete one that is not used", "there are %d thresholds already", len(t.Rules))
		}
		t.Rules = append(t.Rules, rec)
		return nil
	})
	return out, explainOrNil(thresholdObject(name), err)
}

func checkThreshold(t observe.Threshold) *Error {
	object := thresholdObject(t.Name)
	m, ok := observe.MetricOf(t.Metric)
	if !ok {
		var names []string
		for _, m := range observe.Metrics() {
			names = append(names, m.Name)
		}
		return invalid("metric", object, "use one of "+strings.Join(names, ", "), "there is no metric %q", clip(t.Metric))
	}
	for field, v := range map[string]float64{"value": t.Value, "clear": t.Clear} {
		switch {
		case math.IsNaN(v) || v < 0 || v > maxThresholdValue:
			return invalid(field, object, "use a number from 0", "%v is not valid", v)
		case m.Unit == observe.UnitPercent && v > 100:
			return invalid(field, object, "use 0 to 100 percent", "%v %% is not valid", v)
		}
	}
	switch {
	case !t.Below && t.Clear > t.Value:
		return invalid("clear", object, "use the value itself, or less", "it would be over above %s, and begin above %s", m.Unit.Format(t.Clear), m.Unit.Format(t.Value))
	case t.Below && t.Clear < t.Value:
		return invalid("clear", object, "use the value itself, or more", "it would be over below %s, and begin below %s", m.Unit.Format(t.Clear), m.Unit.Format(t.Value))
	case t.For < 0 || t.For > maxThresholdFor:
		return invalid("forMs", object, "use 0 to 7 days", "%s is not valid", t.For)
	case t.Level != observe.Warning && t.Level != observe.Bad:
		return invalid("level", object, "use warning or error", "there is no level %q", clip(string(t.Level)))
	case t.Object != "" && !strings.HasPrefix(t.Object, m.Kind()+" "):
		return invalid("object", object, "write it as '"+m.Kind()+" NAME', * stands for any text; empty for all", "metric %s is not of %q", m.Name, clip(t.Object))
	}
	return checkPattern("object", object, t.Object)
}

// ResetThreshold takes back what was set of a threshold: an own one is gone.
func (c *Controller) ResetThreshold(ctx context.Context, name string) error {
	if !slices.ContainsFunc(c.model.Thresholds().Rules, func(r model.Threshold) bool { return r.Name == name }) {
		return nil
	}
	return explainOrNil(thresholdObject(name), c.model.UpdateThresholds(ctx, func(t *model.Thresholds) error {
		t.Rules = slices.DeleteFunc(t.Rules, func(r model.Threshold) bool { return r.Name == name })
		return nil
	}))
}
