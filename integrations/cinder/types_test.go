package cinder

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// store is what a Cinder keeps of volume types and QoS specs. It answers as Cinder does,
// but for one change, whose answer is lost after it was made, or which is not made at all.
type store struct {
	h       *hostile
	types   map[string]map[string]string // extra specs, by name
	specs   map[string]map[string]string // QoS specs, by name
	of      map[string]string            // type -> QoS specs
	changes int
	lose    int  // the change that goes wrong; 0: none
	made    bool // it is made, and its answer lost
}

func newStore(t *testing.T) *store {
	s := &store{h: newHostile(t, false), types: map[string]map[string]string{}, specs: map[string]map[string]string{}, of: map[string]string{}}
	delete(s.h.paths, "/volume/v3/p1/types")
	delete(s.h.paths, "/volume/v3/p1/qos-specs")
	for _, p := range []string{"/volume/v3/p1/types", "/volume/v3/p1/qos-specs"} {
		s.h.paths[p] = s.serve
	}
	s.h.other = s.serve
	return s
}

func (s *store) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/volume/v3/p1/"), "/")
	var in struct {
		Type struct {
			Name  string            `json:"name"`
			Extra map[string]string `json:"extra_specs"`
		} `json:"volume_type"`
		Extra map[string]string `json:"extra_specs"`
		QoS   map[string]string `json:"qos_specs"`
		Keys  []string          `json:"keys"`
	}
	_ = json.NewDecoder(r.Body).Decode(&in)
	change := r.Method != http.MethodGet || len(parts) > 2 // association is a GET
	if change {
		s.changes++
		if s.changes == s.lose && !s.made {
			panic(http.ErrAbortHandler)
		}
	}
	out, code := s.do(r, parts, in.Type.Name, in.Type.Extra, in.Extra, in.QoS, in.Keys)
	if change && s.changes == s.lose {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(out)
}

// do carries out a request. Ids are names.
func (s *store) do(r *http.Request, parts []string, name string, made, extra, specs map[string]string, keys []string) (any, int) {
	switch {
	case parts[0] == "types" && len(parts) == 1 && r.Method == http.MethodGet:
		list := []map[string]any{}
		if r.URL.Query().Get("offset") == "0" {
			for n, e := range s.types {
				list = append(list, map[string]any{"id": n, "name": n, "extra_specs": e, "qos_specs_id": s.of[n]})
			}
		}
		return map[string]any{"volume_types": list}, 200
	case parts[0] == "types" && len(parts) == 1:
		if s.types[name] != nil {
			return nil, 409
		}
		s.types[name] = made
		return map[string]any{"volume_type": map[string]any{"id": name, "name": name, "extra_specs": made}}, 200
	case parts[0] == "types" && s.types[parts[1]] == nil:
		return nil, 404
	case parts[0] == "types" && len(parts) == 2:
		delete(s.types, parts[1])
		delete(s.of, parts[1])
		return nil, 202
	case parts[0] == "types" && r.Method == http.MethodDelete:
		delete(s.types[parts[1]], parts[3])
		return nil, 202
	case parts[0] == "types":
		maps.Copy(s.types[parts[1]], extra)
		return map[string]any{"extra_specs": extra}, 200
	case len(parts) == 1 && r.Method == http.MethodGet:
		list := []map[string]any{}
		for n, q := range s.specs {
			list = append(list, map[string]any{"id": n, "name": n, "consumer": "back-end", "specs": q})
		}
		return map[string]any{"qos_specs": list}, 200
	case len(parts) == 1:
		n := specs["name"]
		if s.specs[n] != nil {
			return nil, 409
		}
		delete(specs, "name")
		delete(specs, "consumer")
		s.specs[n] = specs
		return map[string]any{"qos_specs": map[string]any{"id": n, "name": n}}, 200
	case s.specs[parts[1]] == nil:
		return nil, 404
	case len(parts) == 2 && r.Method == http.MethodDelete:
		for _, q := range s.of {
			if q == parts[1] {
				return map[string]any{"badRequest": map[string]any{"message": "it is in use"}}, 400
			}
		}
		delete(s.specs, parts[1])
		return nil, 202
	case len(parts) == 2:
		delete(specs, "consumer")
		maps.Copy(s.specs[parts[1]], specs)
		return map[string]any{"qos_specs": specs}, 200
	case parts[2] == "delete_keys":
		for _, k := range keys {
			delete(s.specs[parts[1]], k)
		}
		return nil, 202
	case s.types[r.URL.Query().Get("vol_type_id")] == nil:
		return nil, 404
	case parts[2] == "associate":
		s.of[r.URL.Query().Get("vol_type_id")] = parts[1]
		return nil, 202
	case parts[2] == "disassociate":
		delete(s.of, r.URL.Query().Get("vol_type_id"))
		return nil, 202
	}
	return nil, 400
}

// begin counts changes anew, and says which one goes wrong.
func (s *store) begin(lose int, made bool) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.changes, s.lose, s.made = 0, lose, made
}

// state is all that it keeps, and the changes since begin.
func (s *store) state() (string, int) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(s.types)) {
		fmt.Fprintf(&b, "%s: %s, QoS %s\n", n, text(s.types[n]), s.of[n])
	}
	for _, n := range slices.Sorted(maps.Keys(s.specs)) {
		fmt.Fprintf(&b, "QoS %s: %s\n", n, text(s.specs[n]))
	}
	return b.String(), s.changes
}

// TestApplyCutOff makes each change of a plan go wrong, once before and once after it was
// made. The next plan has what is left, whatever the states before and after are.
func TestApplyCutOff(t *testing.T) {
	states := [][]Type{
		{{Name: "gold", VPool: "fast", Multiattach: true, Limits: Limits{IOPS: 100, BytesPerGiB: 9}}, {Name: "silver", VPool: "fast"}},
		{{Name: "gold", VPool: "fast", Limits: Limits{IOPS: 200}}, {Name: "bronze", VPool: "fast", Limits: Limits{IOPS: 10}}},
		{{Name: "gold", VPool: "fast"}},
		{{Name: "bronze", VPool: "fast", Limits: Limits{BurstMillis: 5}}},
	}
	apply := func(s *store, want []Type) (int, error) {
		t.Helper()
		p, err := s.h.connect(t).Plan(t.Context(), here, want, true)
		if err != nil {
			t.Fatal(err)
		}
		return p.Apply(t.Context())
	}
	// What comes out when nothing goes wrong, and the changes that it takes.
	var ends []string
	var changes []int
	straight := newStore(t)
	for _, want := range states {
		straight.begin(0, false)
		if _, err := apply(straight, want); err != nil {
			t.Fatal(err)
		}
		end, n := straight.state()
		ends, changes = append(ends, end), append(changes, n)
		straight.begin(0, false)
		n, err := apply(straight, want)
		if _, requests := straight.state(); n != 0 || err != nil || requests != 0 {
			t.Errorf("repeated: %d changes, %d requests, %v", n, requests, err)
		}
	}
	if ends[2] != "gold: pool_name=fast, volume_backend_name=ovgate, QoS \n" {
		t.Errorf("%s", ends[2])
	}
	for to := range states {
		for lose := 1; lose <= changes[to]; lose++ {
			for _, made := range []bool{false, true} {
				s := newStore(t)
				if to > 0 {
					if _, err := apply(s, states[to-1]); err != nil {
						t.Fatal(err)
					}
				}
				s.begin(lose, made)
				// net/http repeats a GET or DELETE whose connection was cut by itself.
				_, first := apply(s, states[to])
				s.begin(0, false)
				if _, err := apply(s, states[to]); err != nil {
					t.Errorf("to %d, change %d, made %v: again: %v, after %v", to, lose, made, err, first)
				}
				if got, _ := s.state(); got != ends[to] {
					t.Errorf("to %d, change %d, made %v:\n%swant\n%s", to, lose, made, got, ends[to])
				}
			}
		}
	}
}
