package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
)

// Callers have a role over everything, and may have roles on vPools and registered stores (A8).
// Who has the role of an operation over everything passes as if there were no scopes. To others
// an operation is open where its rule says how it is scoped; all others are closed to them. What
// they may not read does not exist for them: it is in no list, total or event, and asking for it
// is answered as for a name that nothing has.

// reach says how an operation is open to a caller who has its role on some objects alone.
type reach int

const (
	reachAll      reach = iota // it is not
	reachVPool                 // for the vPool of the path
	reachVDisk                 // for the vDisk of the path
	reachTrash                 // for the vDisk of the path, which is in the trash
	reachTarget                // for the target of the path: its vDisks count, or who made an empty one
	reachTransfer              // for the import or export of the path
	reachBackend               // for the registered store of the path
	reachFound                 // for what the handler finds: it checks, and filters
	reachOwn                   // for what is the caller's own: the handler checks
)

// reachParams are the parameters of paths that name an object.
var reachParams = map[reach]string{
	reachVPool: "vpool", reachVDisk: "vdisk", reachTrash: "vdisk", reachTarget: "iqn", reachTransfer: "transfer", reachBackend: "backend",
}

// sight is what a caller may read; nil: everything.
type sight struct{ who auth.Principal }

// sight returns what the caller of a request may read.
func (s *Server) sight(ctx context.Context) *sight { return sightOf(callerOf(ctx).Principal) }

func sightOf(who auth.Principal) *sight {
	if who.Role.Allows(auth.RoleRead) {
		return nil
	}
	return &sight{who}
}

// all tells whether each of some scopes can be read; there is one at least.
func (v *sight) all(scopes []string) bool {
	return v == nil || len(scopes) > 0 && !slices.ContainsFunc(scopes, func(scope string) bool { return !v.may(scope, auth.RoleRead) })
}

// may tells whether the caller has a role on a scope.
func (v *sight) may(scope string, need auth.Role) bool {
	if user, own := strings.CutPrefix(scope, makerScope); own {
		return v.who.User != "" && v.who.User == user && v.who.Any(need)
	}
	return v.who.On(scope).Allows(need)
}

func (v *sight) vpool(id string) bool           { return v.all([]string{auth.VPoolScope(id)}) }
func (v *sight) backend(id string) bool         { return v.all([]string{auth.BackendScope(id)}) }
func (v *sight) target(t control.Target) bool   { return v.all(targetScopes(t)) }
func (v *sight) vpools(ids []string) bool       { return v.all(vpoolScopes(ids)) }
func (v *sight) named(s *Server, n string) bool { return v == nil || s.seesObject(v, n) }

func vpoolScopes(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, auth.VPoolScope(id))
	}
	return out
}

// makerScope and a user's name are the scope of an empty target that the user made.
const makerScope = "maker:"

// targetScopes are the vPools of the vDisks of a target; of an empty one, who made it.
func targetScopes(t control.Target) []string {
	if len(t.LUNs) == 0 && t.Maker != "" {
		return []string{makerScope + t.Maker}
	}
	var out []string
	for _, l := range t.LUNs {
		if scope := auth.VPoolScope(l.VDisk.VPool); !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	return out
}

// seesObject tells whether all that is called so, such as "vdisk db", can be read.
func (s *Server) seesObject(v *sight, object string) bool {
	kind, name, _ := strings.Cut(object, " ")
	switch kind {
	case "vpool":
		_, err := s.opt.Control.FindVPoolAmong(name, v.vpool)
		return err == nil
	case "vdisk":
		all := s.opt.Model.VDisks(func(d model.VDisk) bool { return d.Name == name })
		return len(all) > 0 && !slices.ContainsFunc(all, func(d model.VDisk) bool { return !v.vpool(d.VPool) })
	case "target":
		_, err := s.opt.Control.FindTargetAmong(name, v.target)
		return err == nil
	}
	return false
}

// lacks is the refusal of a caller without a role on something.
func lacks(object string, need, have auth.Role) error {
	return refuse(http.StatusForbidden, "forbidden", object, "ask somebody who manages the cluster for it", "this needs role %s on %s, you have role %s there", need, object, have)
}

// scopeObject is what messages call the object of a scope.
func (s *Server) scopeObject(scope string) string {
	if user, own := strings.CutPrefix(scope, makerScope); own {
		return "targets of " + user
	}
	kind, name, _ := s.opt.Auth.ScopeName(scope)
	return kind + " " + name
}

// needs refuses a caller who has not a role on each of some scopes, of which there has to be one
// unless it has the role over everything.
func (s *Server) needs(who auth.Principal, need auth.Role, object string, scopes []string) error {
	if who.Role.Allows(need) {
		return nil
	}
	v := &sight{who}
	for _, scope := range scopes {
		if !v.may(scope, need) {
			return lacks(s.scopeObject(scope), need, who.On(scope))
		}
	}
	if len(scopes) == 0 {
		return lacks(object, need, auth.RoleNone)
	}
	return nil
}

// poolFor is the vPool that a request names, where its caller has a role.
func (s *Server) poolFor(ctx context.Context, ref, field string, need auth.Role) (string, error) {
	who := callerOf(ctx).Principal
	if who.Role.Allows(need) {
		return ref, nil
	}
	p, err := s.opt.Control.FindVPoolAmong(ref, sightOf(who).vpool)
	if err != nil {
		return "", control.InField(err, field)
	}
	return p.ID, s.needs(who, need, "", []string{auth.VPoolScope(p.ID)})
}

// diskFor is the vDisk that a request names, where its caller has a role.
func (s *Server) diskFor(ctx context.Context, ref string, need auth.Role) (string, error) {
	who := callerOf(ctx).Principal
	if who.Role.Allows(need) {
		return ref, nil
	}
	v, err := s.opt.Control.FindVDiskAmong(ref, sightOf(who).vpool)
	if err != nil {
		return "", err
	}
	return v.ID, s.needs(who, need, "", []string{auth.VPoolScope(v.VPool)})
}

// targetFor is the target that a request names, where its caller has a role.
func (s *Server) targetFor(ctx context.Context, ref string, need auth.Role) (string, error) {
	who := callerOf(ctx).Principal
	if who.Role.Allows(need) {
		return ref, nil
	}
	t, err := s.opt.Control.FindTargetAmong(ref, sightOf(who).target)
	if err != nil {
		return "", err
	}
	return t.IQN, s.needs(who, need, "target "+t.IQN, targetScopes(t))
}

// admit refuses a caller without the rights that an operation takes. done: the request is answered.
func (s *Server) admit(c echo.Context, rule rule, who caller) (done bool, err error) {
	switch {
	case who.Role.Allows(rule.role), rule.reach == reachOwn:
		return false, nil
	case rule.reach == reachAll, !who.Any(rule.role) && (who.Role.Allows(auth.RoleRead) || !who.Any(auth.RoleRead) || rule.reach == reachFound):
		return false, refuse(http.StatusForbidden, "forbidden", "", "ask somebody with that role", "this needs role %s, you have role %s", rule.role, roleText(who.Rights))
	case rule.reach == reachFound:
		return false, nil
	}
	if err := fit(c); err != nil {
		return false, err
	}
	name := reachParams[rule.reach]
	ref := c.Param(name)
	if c.Request().URL.RawPath != "" {
		if ref, err = url.PathUnescape(ref); err != nil {
			return false, refuseField(name, "", "the path is not escaped as it should be")
		}
	}
	id, scopes, err := s.inReach(rule.reach, ref, sightOf(who.Principal))
	if err != nil {
		if toProblem(err).status == http.StatusNotFound && rule.absent {
			return true, c.NoContent(http.StatusNoContent)
		}
		return false, err
	}
	if err := s.needs(who.Principal, rule.role, name+" "+clip(ref), scopes); err != nil {
		return false, err
	}
	// The handler gets what was looked at: a name may be of something else for it, or by now.
	values := slices.Clone(c.ParamValues())
	values[slices.Index(c.ParamNames(), name)] = id
	c.SetParamValues(values...)
	return false, nil
}

// roleText is the role over everything in a message, and that there are others.
func roleText(r auth.Rights) string {
	if n := len(r.Grants); n > 0 {
		return fmt.Sprintf("%s, and roles on %d objects alone", r.On(""), n)
	}
	return string(r.On(""))
}

// inReach finds what a path names among what can be read: by what the handler finds it, and its scopes.
func (s *Server) inReach(at reach, ref string, v *sight) (id string, scopes []string, err error) {
	switch at {
	case reachVPool:
		p, err := s.opt.Control.FindVPoolAmong(ref, v.vpool)
		return p.ID, []string{auth.VPoolScope(p.ID)}, err
	case reachVDisk:
		d, err := s.opt.Control.FindVDiskAmong(ref, v.vpool)
		return d.ID, []string{auth.VPoolScope(d.VPool)}, err
	case reachTrash:
		d, err := s.opt.Control.FindTrashedAmong(ref, v.vpool)
		return d.ID, []string{auth.VPoolScope(d.VPool)}, err
	case reachTarget:
		t, err := s.opt.Control.FindTargetAmong(ref, v.target)
		return t.IQN, targetScopes(t), err
	case reachBackend:
		r, err := s.opt.Control.FindRemoteAmong(ref, v.backend)
		return r.ID, []string{auth.BackendScope(r.ID)}, err
	case reachTransfer:
		if d, ok := s.opt.Model.VDisk(ref); ok && v.vpool(d.VPool) {
			return d.ID, []string{auth.VPoolScope(d.VPool)}, nil
		}
		return "", nil, refuse(http.StatusNotFound, "not_found", "transfer "+clip(ref), "begin it again", "there is no such import or export")
	}
	return "", nil, refuse(http.StatusForbidden, "forbidden", "", "ask somebody who manages the cluster", "this takes a role over everything")
}
