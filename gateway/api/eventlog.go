package api

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

const (
	// exportMost bounds the events of an export: some tens of megabytes, below what is passed
	// on from node to node.
	exportMost = 100_000
	// exportPage is how many of them are in memory at a time, of each node.
	exportPage = eventsAsked
	// exportWait bounds how long a node is waited for, for each page of an export.
	exportWait = 30 * time.Second
	// maxCodes bounds the codes of a filter.
	maxCodes = 64
)

// eventFilter are the parameters that lists and exports share.
type eventFilter struct {
	severity           *EventSeverity
	code, object, text *string
	since, until       *time.Time
}

// query turns a filter into what the history is asked for.
func (f eventFilter) query() (event.Query, error) {
	q := event.Query{Object: value(f.object), Text: value(f.text), Since: value(f.since), Until: value(f.until)}
	if f.severity != nil {
		if q.Severities = event.AtLeast(event.Severity(*f.severity)); q.Severities == nil {
			return q, refuseField("severity", "use info, warning or error", "there is no severity %q", clip(string(*f.severity)))
		}
	}
	if value(f.code) == "" {
		return q, nil
	}
	q.Codes = strings.Split(*f.code, ",")
	if len(q.Codes) > maxCodes {
		return q, refuseField("code", "name fewer, or what goes before the dot", "a filter has %d codes at most", maxCodes)
	}
	for _, c := range q.Codes {
		if !slices.ContainsFunc(event.Catalogue(), func(a event.About) bool { return a.Code.Is(c) }) {
			return q, refuseField("code", "ovgate event codes lists them", "there is no code %q", clip(c))
		}
	}
	return q, nil
}

// ListEvents lists what happened, the newest first.
func (s *Server) ListEvents(ctx context.Context, r ListEventsRequestObject) (ListEventsResponseObject, error) {
	p := r.Params
	q, err := eventFilter{p.Severity, p.Code, p.Object, p.Q, p.Since, p.Until}.query()
	if err != nil {
		return nil, err
	}
	if q.Limit, _, err = pageOf(p.Limit, nil); err != nil {
		return nil, err
	}
	m := s.newMerge(q, askWait)
	if p.After != nil {
		if m.after, err = parsePlaces(*p.After); err != nil {
			return nil, refuseField("after", "take the position of an answer", "%q is no position", clip(*p.After))
		}
	}
	if p.Cursor != nil {
		if m.cursor, err = parsePlaces(*p.Cursor); err != nil {
			return nil, model.ErrCursor
		}
	}
	if err := s.askNamed(ctx, p.Node, "history of events"); err != nil {
		return nil, err
	}
	if err := m.begin(ctx, p.Node == nil); err != nil {
		return nil, err
	}
	out := ListEvents200JSONResponse{Items: m.page(q.Limit), Silent: m.silent}
	out.Next = m.next()
	if p.Cursor == nil {
		out.Position = new(m.position())
	}
	return out, nil
}

// pageOf reads the limit and the cursor of a log's list: so many, with lower numbers; 0: all.
func pageOf(limit *int, cursor *string) (n int, before uint64, err error) {
	n = model.DefaultPage
	if limit != nil {
		if n = *limit; n < 1 || n > model.MaxPage {
			return 0, 0, refuseField("limit", "", "a page has 1 to %d items", model.MaxPage)
		}
	}
	if cursor != nil {
		if before, err = strconv.ParseUint(*cursor, 10, 64); err != nil || before == 0 {
			return 0, 0, model.ErrCursor
		}
	}
	return n, before, nil
}

// ListEventCodes lists the catalogue.
func (s *Server) ListEventCodes(_ context.Context, r ListEventCodesRequestObject) (ListEventCodesResponseObject, error) {
	rows := []EventCode{}
	for _, a := range event.Catalogue() {
		if matches(r.Params.Q, string(a.Code), nil) {
			rows = append(rows, EventCode{Code: string(a.Code), Severity: EventSeverity(a.Severity), Kind: a.Kind, Text: a.Text, Remedy: a.Remedy})
		}
	}
	items, next, err := page(rows, func(c EventCode) model.Keys { return model.Keys{Text: c.Code, ID: c.Code} }, "code", false, r.Params.Cursor, r.Params.Limit)
	return ListEventCodes200JSONResponse{items, next}, err
}

func eventOf(e event.Event, node string) Event {
	out := Event{Node: node, Seq: int64(e.Seq), Time: e.Time, Code: string(e.Code), Severity: EventSeverity(e.Severity), Object: e.Object, Text: e.Text, Hint: e.Hint, Fields: e.Fields, Count: e.Count}
	if out.Fields == nil {
		out.Fields = map[string]string{}
	}
	if !e.Since.IsZero() {
		out.Since = &e.Since
	}
	return out
}

// silentHeader names the nodes that an export has nothing new of.
const silentHeader = "Ovgate-Silent"

// exportEvents answers with lines of JSON, the newest event first.
func (s *Server) exportEvents(c echo.Context) error {
	q, node, err := exportQuery(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	if err := s.askNamed(ctx, node, "history of events"); err != nil {
		return err
	}
	q.Limit = exportPage
	m := s.newMerge(q, exportWait)
	if err := m.begin(ctx, node == nil); err != nil {
		return err
	}
	h := c.Response().Header()
	name := "ovgate"
	if node != nil || len(m.sources) == 1 {
		name += "-" + notInNames.ReplaceAllString(s.opt.NodeName, "_")
	}
	h.Set("Content-Type", "application/jsonl")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", fmt.Sprintf("%s-events-%s.jsonl", name, s.clock.Now().UTC().Format("20060102T150405Z"))))
	if text := silentText(m.silent); text != "" {
		h.Set(silentHeader, text)
	}
	w := bufio.NewWriter(c.Response())
	if err := cmp.Or(m.write(ctx, json.NewEncoder(w)), w.Flush()); err != nil {
		if !c.Response().Committed {
			return err
		}
		s.log.Warn("an export of events was cut off", "requestId", requestID(c), "err", err)
		panic(http.ErrAbortHandler) // else a part would look like the whole
	}
	return nil
}

// silentText is what silentHeader says.
func silentText(nodes []SilentNode) string {
	var words []string
	for _, n := range nodes {
		w := notInNames.ReplaceAllString(n.Node, "_")
		if n.ObservedAt != nil {
			w += " since " + n.ObservedAt.UTC().Format(time.RFC3339)
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

// exportQuery reads the parameters of an export, which the generated code does not.
func exportQuery(c echo.Context) (q event.Query, node *string, err error) {
	f := eventFilter{}
	text := func(name string) *string {
		if !c.QueryParams().Has(name) {
			return nil
		}
		return new(c.QueryParam(name))
	}
	if v := text("severity"); v != nil {
		f.severity = new(EventSeverity(*v))
	}
	f.code, f.object, f.text, node = text("code"), text("object"), text("q"), text("node")
	for name, to := range map[string]**time.Time{"since": &f.since, "until": &f.until} {
		if v := text(name); v != nil {
			t, err := time.Parse(time.RFC3339, *v)
			if err != nil {
				return q, nil, refuseField(name, "write it like 2030-01-31T12:00:00Z", "%q is no time", clip(*v))
			}
			*to = &t
		}
	}
	q, err = f.query()
	return q, node, err
}
