package iscsi

import "fmt"

// Target describes one target, as Targets does all. ErrNoTarget if there is none
// of this name.
func (s *Server) Target(iqn string) (TargetInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[NormalizeName(iqn)]
	if t == nil {
		return TargetInfo{}, fmt.Errorf("%w: %s", ErrNoTarget, iqn)
	}
	i, in := t.info(), map[*Group]int{}
	for _, ss := range s.sessions {
		if ss.target == t {
			in[ss.view.Load().group]++
			i.Sessions++
		}
	}
	for k := range i.Groups {
		i.Groups[k].Sessions = in[&t.spec.Load().Groups[k]]
	}
	return i, nil
}
