package node

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// eventPage is a page of the history of all nodes.
type eventPage struct {
	Items []struct {
		Seq                int64
		Time               time.Time
		Node, Code, Object string
	}
	Next, Position *string
	Silent         []struct {
		Node, Error string
		ObservedAt  *string
	}
}

func (r *running) eventPage(query string) (p eventPage) {
	r.t.Helper()
	status, b := r.try("GET", "/events/history?"+query, nil)
	if status != 200 {
		r.t.Fatalf("%s: %d %s", query, status, b)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// pages returns the events of all pages, as "node number", and the last page.
func (r *running) pages(query string) (all []string, last eventPage) {
	r.t.Helper()
	for cursor := ""; ; {
		last = r.eventPage(query + cursor)
		for _, e := range last.Items {
			all = append(all, fmt.Sprint(e.Node, " ", e.Seq))
		}
		if last.Next == nil {
			return all, last
		}
		cursor = "&cursor=" + url.QueryEscape(*last.Next)
	}
}

// TestEventsOfNodes: any node has the events of all, by time, by pages of any size, with filters and as a
// file; what another one sees comes by the stream; and one that does not answer is named, with what was
// known of it.
func TestEventsOfNodes(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	one, two := e.first, e.join("beta")
	one.until("both", one.hears("alpha alive up", "beta alive up"))
	two.until("both", two.hears("alpha alive up", "beta alive up"))
	dir := filepath.Join(one.dir, "backend")
	for i := range 6 {
		one.call("POST", "/targets", map[string]any{"name": fmt.Sprint("a", i)}, 201)
		two.call("POST", "/targets", map[string]any{"name": fmt.Sprint("b", i)}, 201)
	}
	one.pool("one", filepath.Join(dir, "one"))
	l := two.listen("?topics=event", "")
	two.pool("two", filepath.Join(dir, "two"))
	one.pool("three", filepath.Join(dir, "three"))
	for _, name := range []string{"two", "three"} { // one at this node, one at the other
		if e := l.until("event", `"object":"vpool `+name+`"`); !strings.Contains(e.data, `"code":"vpool.created"`) || !strings.Contains(e.data, `"node":"`+map[string]string{"two": "beta", "three": "alpha"}[name]+`"`) {
			t.Errorf("the stream has %s", e.data)
		}
	}
	const pools = "code=vpool.created"
	want := "alpha vpool three, beta vpool two, alpha vpool one"
	told := func(p eventPage) string {
		var words []string
		for _, e := range p.Items {
			words = append(words, e.Node+" "+e.Object)
		}
		return strings.Join(words, ", ")
	}
	for _, r := range []*running{one, two} {
		r.until("all are told", func() bool { p := r.eventPage(pools); return len(p.Silent) == 0 && told(p) == want })
	}
	// By pages: all of both, without one twice, in the order of time.
	const both = "code=vpool.created,target.created"
	all, _ := two.pages(both)
	for name, n := range map[string]int{"alpha": 8, "beta": 7} {
		own, _ := two.pages(both + "&node=" + name)
		listed := slices.DeleteFunc(slices.Clone(all), func(e string) bool { return !strings.HasPrefix(e, name) })
		if len(own) != n || !slices.Equal(own, listed) {
			t.Errorf("of %s %q are listed, it has %q", name, listed, own)
		}
	}
	for _, limit := range []int{1, 2, 7} {
		for _, r := range []*running{one, two} {
			if got, _ := r.pages(fmt.Sprint(both, "&limit=", limit)); sorted(got) != sorted(all) {
				t.Errorf("by pages of %d: %q, want %q", limit, got, all)
			}
		}
	}
	items := two.eventPage(both).Items
	for i, e := range items[1:] {
		if e.Time.After(items[i].Time) {
			t.Errorf("%v comes after %v", e, items[i])
		}
	}
	if status, b := two.try("GET", "/events/export?"+both, nil); status != 200 || strings.Count(string(b), "\n") != len(all) {
		t.Errorf("exported: %d, %d lines, want %d", status, strings.Count(string(b), "\n"), len(all))
	}
	// What comes after a position.
	before := two.eventPage("limit=1")
	if p := two.eventPage(pools + "&after=" + *before.Position); told(p) != "" {
		t.Errorf("after everything: %s", told(p))
	}
	one.pool("four", filepath.Join(dir, "four"))
	two.until("it is told", func() bool { return told(two.eventPage(pools+"&after="+*before.Position)) == "alpha vpool four" })
	for _, bad := range []string{"after=12", "after=~x", "cursor=12", "cursor=~a.b", "cursor=x~a.1"} {
		if status, b := two.try("GET", "/events/history?"+bad, nil); status != 400 {
			t.Errorf("%s: %d %s", bad, status, b)
		}
	}
	// The other node goes away, after this one has heard of that.
	if e := l.until("event", `"object":"vpool four"`); !strings.Contains(e.data, `"node":"alpha"`) {
		t.Errorf("the stream has %s", e.data)
	}
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	p := two.eventPage(pools)
	if len(p.Silent) != 1 || p.Silent[0].Node != "alpha" || p.Silent[0].ObservedAt == nil || p.Silent[0].Error == "" || told(p) != "alpha vpool four, "+want {
		t.Errorf("without alpha: %s, silent %+v", told(p), p.Silent)
	}
	if got, last := two.pages(pools + "&limit=1"); len(got) != 4 || len(last.Silent) != 1 {
		t.Errorf("by pages: %q, silent %+v", got, last.Silent)
	}
	if p := two.eventPage(pools + "&after=" + *p.Position); told(p) != "" {
		t.Errorf("after what is known: %s", told(p))
	}
	status, h, b := two.whole("GET", "/events/export?"+pools, nil)
	if silent := h.Get("Ovgate-Silent"); status != 200 || strings.Count(string(b), "\n") != 4 || !strings.HasPrefix(silent, "alpha since 20") {
		t.Errorf("exported without alpha: %d, silent %q: %s", status, silent, b)
	}
}

// sorted is a list whatever its order: events of one instant may be listed either way.
func sorted(list []string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	return strings.Join(list, ",")
}
