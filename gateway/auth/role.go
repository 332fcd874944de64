package auth

import "time"

// Role is what a caller may do: RoleRead < RoleWrite < RoleManage, each
// including the ones before. The words are Open vStorage's.
type Role string

// Roles.
const (
	RoleNone   Role = "none"   // nothing, but what is granted beside it
	RoleRead   Role = "read"   // see everything but secrets
	RoleWrite  Role = "write"  // work with vDisks, targets and CHAP secrets
	RoleManage Role = "manage" // vPools, users, tokens, settings
)

var rank = map[Role]int{RoleRead: 1, RoleWrite: 2, RoleManage: 3}

// ParseRole reads a role.
func ParseRole(s string) (Role, error) {
	if rank[Role(s)] == 0 {
		return "", &FieldError{Field: "role", Message: "this is not a role", Hint: "use read, write or manage"}
	}
	return Role(s), nil
}

// ParseRoleOrNone reads a role that may be none.
func ParseRoleOrNone(s string) (Role, error) {
	if Role(s) == RoleNone {
		return RoleNone, nil
	}
	if rank[Role(s)] == 0 {
		return "", &FieldError{Field: "role", Message: "this is not a role", Hint: "use none, read, write or manage"}
	}
	return Role(s), nil
}

// Allows tells whether r includes need.
func (r Role) Allows(need Role) bool { return rank[need] > 0 && rank[r] >= rank[need] }

// Principal is a caller whose identity was proved.
type Principal struct {
	Name    string // user name, or the token's name
	User    string // the user behind it; empty for the node's own token
	Rights         // now
	Token   string // id of the bearer token; empty for a browser session
	Session string // hash of the browser session; empty for a token
	// External: the user is one of a sign-in provider.
	External bool
	Expires  time.Time // zero: never
}

// String names the principal for logs and idempotency keys.
func (p Principal) String() string {
	if p.Token != "" {
		return "token/" + p.Token
	}
	return "user/" + p.Name
}
