package cinder

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// serviceRole is the role that tells Cinder that a request is a service's own. Without a
// token of a user with it, Cinder refuses Nova's detaches (since the fix of CVE-2023-2088),
// and a copy of an image fails when the token of its user ends.
const serviceRole = "service"

// serviceToken looks whether somebody has that role. Keystone tells its administrators
// only: known is false for others.
func (c *Cloud) serviceToken(ctx context.Context) (users int, known bool, err error) {
	var roles struct {
		Roles []struct {
			ID string `json:"id"`
		} `json:"roles"`
	}
	err = get(ctx, c.keystone, "look for the role "+serviceRole, c.keystone.ServiceURL("roles")+"?name="+serviceRole, &roles)
	if status(err, http.StatusForbidden) {
		return 0, false, nil
	}
	if err != nil || len(roles.Roles) == 0 {
		return 0, true, err
	}
	var given struct {
		Assignments []struct {
			User  struct{ ID string } `json:"user"`
			Group struct{ ID string } `json:"group"`
		} `json:"role_assignments"`
	}
	err = get(ctx, c.keystone, "look who has the role "+serviceRole, c.keystone.ServiceURL("role_assignments")+"?role.id="+url.QueryEscape(roles.Roles[0].ID), &given)
	if status(err, http.StatusForbidden) {
		return 0, false, nil
	}
	for _, a := range given.Assignments {
		if a.User.ID != "" || a.Group.ID != "" {
			users++
		}
	}
	return users, true, err
}

// ServiceToken are the sections of cinder.conf that make Cinder show, and ask for, the
// token of a service.
type ServiceToken struct {
	AuthURL string // of Keystone
	User    string // Cinder's own in Keystone
	Project string // that it is in
	Domain  string // of both
}

// Text returns the sections. The password is not in them: who has it writes it there.
func (s ServiceToken) Text() (string, error) {
	if err := CheckURL(s.AuthURL); err != nil {
		return "", fmt.Errorf("auth_url %s: %w", s.AuthURL, err)
	}
	for name, v := range map[string]string{"auth_url": s.AuthURL, "username": s.User, "project_name": s.Project, "domain": s.Domain} {
		if v == "" || strings.ContainsAny(v, "\t\r\n,\"'#$;\\") {
			return "", fmt.Errorf("%s %q: it is empty, or has a sign that cinder.conf reads differently", name, v)
		}
	}
	return fmt.Sprintf(`[keystone_authtoken]
service_token_roles = %[1]s
service_token_roles_required = true

[service_user]
send_service_user_token = true
auth_type = password
auth_url = %[2]s
username = %[3]s
# password = as in [keystone_authtoken]
project_name = %[4]s
user_domain_name = %[5]s
project_domain_name = %[5]s
`, serviceRole, s.AuthURL, s.User, s.Project, s.Domain), nil
}
