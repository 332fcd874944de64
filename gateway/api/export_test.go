package api

import "github.com/openvstorage/ovgate/gateway/auth"

// RuleOf tells the tests outside who may call an operation; false: there is no rule.
func RuleOf(op string) (role auth.Role, public, ok bool) {
	r, ok := rules[op]
	return r.role, r.public, ok
}
