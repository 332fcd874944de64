package main

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// threshold returns the verbs of thresholds of metrics.
func (a *app) threshold() *cobra.Command {
	return group("threshold", "When a metric, such as a latency, is too high or too low", a.thresholdMetrics(), a.thresholdList(), a.thresholdSet(), a.thresholdReset())
}

func (a *app) thresholdMetrics() *cobra.Command {
	cmd := &cobra.Command{Use: "metrics", Short: "List the metrics that thresholds can be set for", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := metrics(ctx, api)
		if err != nil {
			return err
		}
		return printList(a, items, []string{"METRIC", "WRITTEN AS", "MEANS"}, func(m client.Metric) []string {
			return []string{m.Name, unitExample[m.Unit], m.Means}
		})
	})
	return cmd
}

func metrics(ctx context.Context, api *client.Client) ([]client.Metric, error) {
	return client.All(func(cursor *string) ([]client.Metric, *string, error) {
		l, err := client.Get[client.MetricList](api.ListMetrics(ctx, &client.ListMetricsParams{Limit: new(pageSize), Cursor: cursor}))
		return l.Items, l.Next, err
	})
}

func thresholds(ctx context.Context, api *client.Client) ([]client.Threshold, error) {
	return client.All(func(cursor *string) ([]client.Threshold, *string, error) {
		l, err := client.Get[client.ThresholdList](api.ListThresholds(ctx, &client.ListThresholdsParams{Limit: new(pageSize), Cursor: cursor}))
		return l.Items, l.Next, err
	})
}

// unitExample is how a value of a unit is written.
var unitExample = map[client.MetricUnit]string{
	client.MetricUnitUs: "20ms", client.MetricUnitPercent: "80%", client.MetricUnitPerSecond: "5000", client.MetricUnitBytesPerSecond: "100MiB",
}

// parseValue reads a value of a metric as people write it.
func parseValue(flag, s string, unit client.MetricUnit) (float64, error) {
	var v float64
	var err error
	switch unit {
	case client.MetricUnitUs:
		var d time.Duration
		d, err = time.ParseDuration(s)
		v = float64(d) / float64(time.Microsecond)
	case client.MetricUnitBytesPerSecond:
		var n int64
		n, err = parseSize(strings.TrimSuffix(s, "/s"))
		v = float64(n)
	default:
		v, err = strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(s, "%")), 64)
	}
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return 0, usagef("--%s %s: write it as %s", flag, s, unitExample[unit])
	}
	return v, nil
}

// formatValue is how parseValue reads it.
func formatValue(v float64, unit client.MetricUnit) string {
	switch unit {
	case client.MetricUnitUs:
		return time.Duration(v * float64(time.Microsecond)).String()
	case client.MetricUnitPercent:
		return strconv.FormatFloat(v, 'f', -1, 64) + "%"
	case client.MetricUnitBytesPerSecond:
		return formatSize(int64(v)) + "/s"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func (a *app) thresholdList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the thresholds", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := thresholds(ctx, api)
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "ON", "LEVEL", "METRIC", "OF", "WHEN", "CLEAR", "FOR"}, thresholdRow)
	})
	return cmd
}

func thresholdRow(t client.Threshold) []string {
	of := t.Object
	if of == "" {
		of = "all"
	}
	return []string{
		t.Name, yesNo(!t.Off), string(t.Level), t.Metric, of, string(t.Compare) + " " + formatValue(t.Value, t.Unit), formatValue(t.Clear, t.Unit), formatMillis(t.ForMs),
	}
}

func (a *app) thresholdSet() *cobra.Command {
	var metric, object, above, below, clear, level string
	var during time.Duration
	var off, on bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a threshold, or make one",
		Long: "Change a threshold, or make one, which needs --metric and --above or --below. What is not given stays as it is, but\n" +
			"--clear, which becomes the value when that is given alone.",
		Example: "  ovgate alert threshold set slow-db --metric vdisk.write_latency_p99 --object 'vdisk db*' --above 20ms --clear 10ms --for 5m",
		Args:    names("NAME"),
	}
	f := cmd.Flags()
	f.StringVar(&metric, "metric", "", "what is looked at; alert threshold metrics lists them")
	f.StringVar(&object, "object", "", "of which objects, such as 'vdisk db*'; * stands for any text; all for every one")
	f.StringVar(&above, "above", "", "it tells when the metric is above this")
	f.StringVar(&below, "below", "", "it tells when the metric is below this")
	f.StringVar(&clear, "clear", "", "where it is over (default where it begins)")
	f.DurationVar(&during, "for", 0, "for how long the metric has to be there (default 5m)")
	f.StringVar(&level, "level", "", "warning or error (default warning)")
	f.BoolVar(&off, "off", false, "do not look at it")
	f.BoolVar(&on, "on", false, "look at it")
	cmd.MarkFlagsMutuallyExclusive("off", "on")
	cmd.MarkFlagsMutuallyExclusive("above", "below")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.ThresholdInput{Metric: given(metric)}
		if above+below+clear != "" {
			unit, err := thresholdUnit(ctx, api, args[0], metric)
			if err != nil {
				return err
			}
			for _, v := range []struct {
				flag, text string
				to         **float64
			}{{"above", above, &in.Value}, {"below", below, &in.Value}, {"clear", clear, &in.Clear}} {
				if v.text == "" {
					continue
				}
				n, err := parseValue(v.flag, v.text, unit)
				if err != nil {
					return err
				}
				*v.to = &n
			}
			switch {
			case above != "":
				in.Compare = new(client.ThresholdCompareAbove)
			case below != "":
				in.Compare = new(client.ThresholdCompareBelow)
			}
		}
		if object == "all" {
			in.Object = new("")
		} else {
			in.Object = given(object)
		}
		if f.Changed("for") {
			in.ForMs = new(during.Milliseconds())
		}
		if level != "" {
			in.Level = new(client.AlertLevel(level))
		}
		if on || off {
			in.Off = new(off)
		}
		t, err := client.Get[client.Threshold](api.SetThreshold(ctx, args[0], in))
		if err != nil {
			return err
		}
		row := thresholdRow(t)
		return printOne(a, t, [][]string{{"name", row[0]}, {"on", row[1]}, {"level", row[2]}, {"metric", row[3]}, {"of", row[4]}, {"when", row[5]}, {"clear", row[6]}, {"for", row[7]}})
	})
	return cmd
}

// thresholdUnit returns the unit of a metric, or of the metric that a threshold has; of one
// that is not known, which the node refuses, that of a number.
func thresholdUnit(ctx context.Context, api *client.Client, name, metric string) (client.MetricUnit, error) {
	if metric == "" {
		all, err := thresholds(ctx, api)
		for _, t := range all {
			if t.Name == name {
				return t.Unit, nil
			}
		}
		return client.MetricUnitPerSecond, err
	}
	all, err := metrics(ctx, api)
	if err != nil {
		return "", err
	}
	known := make([]string, 0, len(all))
	for _, m := range all {
		if m.Name == metric {
			return m.Unit, nil
		}
		known = append(known, m.Name)
	}
	return "", usagef("--metric %s: there is no such metric; use one of %s", metric, strings.Join(known, ", "))
}

func (a *app) thresholdReset() *cobra.Command {
	cmd := &cobra.Command{Use: "reset NAME", Short: "Make a default threshold as it was, or delete another one", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.ResetThreshold(ctx, args[0]))
	})
	return cmd
}
