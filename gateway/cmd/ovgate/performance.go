package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// shownPoints are the rows of a table of performance unless told otherwise: a screen.
const shownPoints = 20

// historyFlags say which history of performance is wanted.
type historyFlags struct {
	since, until momentFlag
	points       int
	latencies    bool
}

func (f *historyFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.Var(&f.since, "since", "from then on: so long ago, such as 24h, up to 90 days, or 2030-01-31 or 2030-01-31T12:00:00Z (default an hour before the end)")
	fl.Var(&f.until, "until", "until then (default now)")
	fl.IntVar(&f.points, "points", shownPoints, "most rows, 2 to 1000; the time of a row is as short as that allows")
	fl.BoolVar(&f.latencies, "latencies", false, "how many commands took how long, in all of that time; with -o json in each step of it")
}

const historyLong = "Seconds are kept for ten minutes, steps of 10 s for a day, of 5 min for 90 days. Rates and p50 are means over the\n" +
	"time of a row, p99 is the largest within it; TIME is when it begins. A time in which the node did not run has no row.\n" +
	"With --latencies a row is for commands that took that long, up to twice that."

func (a *app) vdiskPerformance() *cobra.Command {
	var f historyFlags
	cmd := a.vdiskVerb("performance NAME", "Show what a vDisk did", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			now := time.Now()
			h, err := client.Get[client.PerformanceHistory](api.GetVDiskPerformance(ctx, args[0], &client.GetVDiskPerformanceParams{From: f.since.time(now), To: f.until.time(now), Points: &f.points, Latencies: &f.latencies}))
			if err != nil {
				return err
			}
			return a.printHistory(h, []string{"CACHE-HITS"}, func(p client.HistoryPoint) []string { return []string{cacheHits(p)} })
		})
	cmd.Long = "Show what a vDisk did at the node that serves it. " + historyLong
	cmd.Example = "  ovgate vdisk performance db1 --since 24h"
	f.add(cmd)
	return cmd
}

func (a *app) vpoolPerformance() *cobra.Command {
	var f historyFlags
	var node string
	cmd := &cobra.Command{Use: "performance NAME", Short: "Show what the vDisks of a vPool did", Args: names("NAME"), ValidArgsFunction: a.completeVPools}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		now := time.Now()
		h, err := client.Get[client.PerformanceHistory](api.GetVPoolPerformance(ctx, args[0], &client.GetVPoolPerformanceParams{From: f.since.time(now), To: f.until.time(now), Points: &f.points, Latencies: &f.latencies, Node: given(node)}))
		if err != nil {
			return err
		}
		return a.printHistory(h, []string{"CACHE-HITS", "STORED"}, func(p client.HistoryPoint) []string { return []string{cacheHits(p), formatSize(p.Stored)} })
	})
	cmd.Long = "Show what the vDisks of a vPool that one node serves did together, and what they had on the backend.\n" + historyLong
	cmd.Example = "  ovgate vpool performance fast --since 168h"
	f.add(cmd)
	cmd.Flags().StringVar(&node, "node", "", "name or id of the node (default the one that is asked, or the one that a vPool in a directory is at)")
	return cmd
}

func (a *app) nodePerformance() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{Use: "performance NAME", Short: "Show what the vDisks of a node did", Args: names("NAME"), ValidArgsFunction: a.completeNodes}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		now := time.Now()
		h, err := client.Get[client.PerformanceHistory](api.GetNodePerformance(ctx, args[0], &client.GetNodePerformanceParams{From: f.since.time(now), To: f.until.time(now), Points: &f.points, Latencies: &f.latencies}))
		if err != nil {
			return err
		}
		return a.printHistory(h, []string{"CACHE-HITS", "CPU", "MEMORY"}, func(p client.HistoryPoint) []string { return []string{cacheHits(p), percent(p.CPU), percent(p.Memory)} })
	})
	cmd.Long = "Show what all vDisks of a node did together, and how busy its machine was.\n" + historyLong
	cmd.Example = "  ovgate node performance n1 --since 24h -o json"
	f.add(cmd)
	return cmd
}

func (a *app) backendPerformance() *cobra.Command {
	var f historyFlags
	var node string
	cmd := &cobra.Command{Use: "performance NAME", Short: "Show what a registered store was asked", Args: names("NAME"), ValidArgsFunction: a.completeBackends}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		now := time.Now()
		h, err := client.Get[client.PerformanceHistory](api.GetBackendPerformance(ctx, args[0], &client.GetBackendPerformanceParams{From: f.since.time(now), To: f.until.time(now), Points: &f.points, Latencies: &f.latencies, Node: given(node)}))
		if err != nil {
			return err
		}
		return a.printHistory(h, nil, nil)
	})
	cmd.Long = "Show what a registered store was asked by one node: requests that read and write objects, for all vPools on it.\n" + historyLong
	cmd.Example = "  ovgate backend performance store --since 24h"
	f.add(cmd)
	cmd.Flags().StringVar(&node, "node", "", "name or id of the node (default the one that is asked)")
	return cmd
}

// printHistory prints a row for each point; more are columns that other objects do not have.
func (a *app) printHistory(h client.PerformanceHistory, header []string, more func(client.HistoryPoint) []string) error {
	if a.output == outputJSON {
		return printJSON(a.out, h)
	}
	if h.BucketsUs != nil {
		return a.printLatencies(h)
	}
	rows := [][]string{append([]string{"TIME", "READ-IOPS", "WRITE-IOPS", "READ", "WRITE", "READ-P50", "READ-P99", "WRITE-P50", "WRITE-P99"}, header...)}
	for _, p := range h.Points {
		v := p.Performance
		row := []string{
			formatTime(&p.Time), formatRate(v.ReadIops), formatRate(v.WriteIops), formatSize(int64(v.ReadBytesPerSecond)) + "/s", formatSize(int64(v.WriteBytesPerSecond)) + "/s",
			formatMicros(v.ReadP50Us), formatMicros(v.ReadP99Us), formatMicros(v.WriteP50Us), formatMicros(v.WriteP99Us),
		}
		if more != nil {
			row = append(row, more(p)...)
		}
		rows = append(rows, row)
	}
	return printRows(a.out, rows)
}

// cacheHits prints the share of what reads had from the read cache; nothing read from it or past it: "-".
func cacheHits(p client.HistoryPoint) string {
	hits, misses := p.Performance.CacheHitsPerSecond, p.Performance.CacheMissesPerSecond
	if hits+misses == 0 {
		return "-"
	}
	return percent(100 * hits / (hits + misses))
}

// printLatencies prints a row for each bucket with commands: their mean rate, and their share of all.
func (a *app) printLatencies(h client.PerformanceHistory) error {
	bounds := *h.BucketsUs
	reads, writes := make([]float64, len(bounds)), make([]float64, len(bounds))
	add := func(sums, rates []float64) (total float64) {
		for i, n := range rates[:min(len(rates), len(sums))] {
			sums[i] += n
			total += n
		}
		return total
	}
	var allReads, allWrites, known float64
	for _, p := range h.Points {
		if p.Latencies != nil {
			known++
			allReads += add(reads, p.Latencies.Reads)
			allWrites += add(writes, p.Latencies.Writes)
		}
	}
	share := func(n, all float64) string {
		if n == 0 {
			return "-"
		}
		return strconv.FormatFloat(100*n/all, 'f', 2, 64) + "%"
	}
	rows := [][]string{{"LATENCY", "READ-IOPS", "READS", "WRITE-IOPS", "WRITES"}}
	for i, from := range bounds {
		if reads[i] == 0 && writes[i] == 0 {
			continue
		}
		latency := formatMicros(float64(from))
		if i == 0 {
			latency = "0us"
		}
		rows = append(rows, []string{latency, formatRate(reads[i] / known), share(reads[i], allReads), formatRate(writes[i] / known), share(writes[i], allWrites)})
	}
	return printRows(a.out, rows)
}

// formatRate prints commands per second, few of them with two digits behind the point.
func formatRate(n float64) string {
	if n > 0 && n < 10 {
		return strconv.FormatFloat(n, 'f', 2, 64)
	}
	return strconv.FormatFloat(n, 'f', 0, 64)
}

func percent(n float64) string { return strconv.FormatFloat(n, 'f', 0, 64) + "%" }
