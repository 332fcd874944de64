package vsphere

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	// adapterWait bounds how long software iSCSI takes to come up.
	adapterWait = time.Minute
	// adapterPoll is the pause between looks for it.
	adapterPoll = 200 * time.Millisecond
	iscsiPort   = 3260
)

// Advanced settings of a send target, in seconds: a session has to outlast a node that is
// being taken over, and a login one that starts.
const (
	loginTimeout    = 30
	noopOutTimeout  = 30
	recoveryTimeout = 45
)

// Target is what a host is prepared for.
type Target struct {
	Portals    []string // HOST:PORT
	CHAPUser   string
	CHAPSecret string
	// MutualUser and MutualSecret are what the target proves; empty: it is not asked to.
	MutualUser   string
	MutualSecret string
}

// Action is a change of a host, made or planned.
type Action struct {
	Host   string
	Action string // "enable", "add", "set", "rescan", …
	Detail string
}

// sendTarget is a portal as hosts are told of it.
func sendTarget(portal string) (types.HostInternetScsiHbaSendTarget, error) {
	address, text, err := net.SplitHostPort(portal)
	if err != nil {
		return types.HostInternetScsiHbaSendTarget{}, fmt.Errorf("portal %s: %w", portal, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return types.HostInternetScsiHbaSendTarget{}, fmt.Errorf("portal %s: %w", portal, err)
	}
	return types.HostInternetScsiHbaSendTarget{Address: address, Port: int32(port)}, nil
}

func samePlace(a, b types.HostInternetScsiHbaSendTarget) bool {
	port := func(t types.HostInternetScsiHbaSendTarget) int32 {
		if t.Port == 0 {
			return iscsiPort
		}
		return t.Port
	}
	return a.Address == b.Address && port(a) == port(b)
}

// Whether a host does CHAP.
const (
	prohibited = string(types.HostInternetScsiHbaChapAuthenticationTypeChapProhibited)
	preferred  = string(types.HostInternetScsiHbaChapAuthenticationTypeChapPreferred)
	required   = string(types.HostInternetScsiHbaChapAuthenticationTypeChapRequired)
)

// credentials are those of a send target. A node may have no CHAP in discovery, and a target that
// demands it refuses whoever has none: so a host prefers it, and does not insist. One that has the
// target prove itself has to insist on both, as hosts take nothing else.
func (t Target) credentials() *types.HostInternetScsiHbaAuthenticationProperties {
	a := &types.HostInternetScsiHbaAuthenticationProperties{
		ChapAuthEnabled: true, ChapName: t.CHAPUser, ChapSecret: t.CHAPSecret, ChapInherited: new(false), ChapAuthenticationType: preferred,
		MutualChapAuthenticationType: prohibited, MutualChapInherited: new(false),
	}
	if t.MutualUser != "" {
		a.MutualChapName, a.MutualChapSecret = t.MutualUser, t.MutualSecret
		a.ChapAuthenticationType, a.MutualChapAuthenticationType = required, required
	}
	return a
}

// chap is how the target's CHAP is told of.
func (t Target) chap() string {
	if t.MutualUser != "" {
		return "mutual CHAP"
	}
	return "CHAP"
}

// sameCHAP tells whether a send target has these credentials, as far as a host tells: no secrets.
// What an administrator has the target prove is left alone where that is not asked for.
func (t Target) sameCHAP(have *types.HostInternetScsiHbaAuthenticationProperties) bool {
	if have == nil || !have.ChapAuthEnabled || have.ChapName != t.CHAPUser {
		return false
	}
	return t.MutualUser == "" || have.MutualChapName == t.MutualUser && have.MutualChapAuthenticationType == required && have.ChapAuthenticationType == required
}

// advanced are the settings of a send target.
func advanced() []types.HostInternetScsiHbaParamValue {
	value := func(key string, v any) types.HostInternetScsiHbaParamValue {
		return types.HostInternetScsiHbaParamValue{OptionValue: types.OptionValue{Key: key, Value: v}, IsInherited: new(false)}
	}
	return []types.HostInternetScsiHbaParamValue{
		value("LoginTimeout", int32(loginTimeout)), value("NoopOutTimeout", int32(noopOutTimeout)), value("RecoveryTimeout", int32(recoveryTimeout)),
		value("DelayedAck", false),
	}
}

func sameAdvanced(have []types.HostInternetScsiHbaParamValue) bool {
	for _, want := range advanced() {
		if !slices.ContainsFunc(have, func(h types.HostInternetScsiHbaParamValue) bool { return h.Key == want.Key && h.Value == want.Value }) {
			return false
		}
	}
	return true
}

// EnableISCSI switches software iSCSI on and waits for the adapter; it returns what adapters
// the host has then.
func (h *Host) EnableISCSI(ctx context.Context) (*Storage, error) {
	ctx, cancel := context.WithTimeout(ctx, adapterWait)
	defer cancel()
	asked := false
	for {
		s, err := h.look(ctx, Adapters)
		if err != nil {
			return nil, err
		}
		if name, _ := s.Initiator(); name != "" {
			return s, nil
		}
		if !s.info.SoftwareInternetScsiEnabled && !asked {
			_, err := methods.UpdateSoftwareInternetScsiEnabled(ctx, h.c.client, &types.UpdateSoftwareInternetScsiEnabled{This: h.storage, Enabled: true})
			if err != nil {
				return nil, explain(h.Name+": switch software iSCSI on", err)
			}
			asked = true
			continue
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: switch software iSCSI on: %w: no adapter appears", h.Name, ErrRefused)
		case <-time.After(adapterPoll):
		}
	}
}

// PlanTarget says what SetTarget would change of a host; rotate: the secret is a new one. It
// is of the part Adapters.
func (s *Storage) PlanTarget(t Target, rotate bool) ([]Action, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	a := s.adapter()
	if a == nil {
		out := []Action{{s.host, "enable", "software iSCSI"}}
		for _, p := range t.Portals {
			out = append(out, Action{s.host, "add", "send target " + p + " with " + t.chap() + " as " + t.CHAPUser})
		}
		return out, nil
	}
	changes, err := changesOf(a, t, rotate)
	var out []Action
	for _, c := range changes {
		out = append(out, Action{s.host, c.action, c.detail})
	}
	return out, err
}

// What of a send target has to change.
const (
	addTarget = iota
	setCHAP
	setTimeouts
)

// change is a difference between an adapter and what it should be.
type change struct {
	what           int
	action, detail string
	target         types.HostInternetScsiHbaSendTarget
}

func changesOf(a *types.HostInternetScsiHba, t Target, rotate bool) ([]change, error) {
	var out []change
	for _, p := range t.Portals {
		want, err := sendTarget(p)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(a.ConfiguredSendTarget, func(o types.HostInternetScsiHbaSendTarget) bool { return samePlace(o, want) })
		if i < 0 {
			out = append(out, change{addTarget, "add", "send target " + p + " with " + t.chap() + " as " + t.CHAPUser, want})
			out = append(out, change{setTimeouts, "set", "timeouts of send target " + p, want})
			continue
		}
		have := a.ConfiguredSendTarget[i]
		if rotate || !t.sameCHAP(have.AuthenticationProperties) {
			out = append(out, change{setCHAP, "set", t.chap() + " of send target " + p + " as " + t.CHAPUser, want})
		}
		if !sameAdvanced(have.AdvancedOptions) {
			out = append(out, change{setTimeouts, "set", "timeouts of send target " + p, want})
		}
	}
	return out, nil
}

// SetTarget makes send targets, CHAP and timeouts of a host what they should be. Software
// iSCSI is on. A host that refuses timeouts has its own, which is told in the answer.
func (h *Host) SetTarget(ctx context.Context, t Target, rotate bool) (done []Action, err error) {
	s, err := h.look(ctx, Adapters)
	if err != nil {
		return nil, err
	}
	a := s.adapter()
	if a == nil {
		return nil, fmt.Errorf("%s: %w: software iSCSI is off", h.Name, ErrRefused)
	}
	changes, err := changesOf(a, t, rotate)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		set := &types.HostInternetScsiHbaTargetSet{SendTargets: []types.HostInternetScsiHbaSendTarget{c.target}}
		switch c.what {
		case addTarget:
			with := c.target
			with.AuthenticationProperties = t.credentials()
			_, err = methods.AddInternetScsiSendTargets(ctx, h.c.client, &types.AddInternetScsiSendTargets{This: h.storage, IScsiHbaDevice: a.Device, Targets: []types.HostInternetScsiHbaSendTarget{with}})
		case setCHAP:
			_, err = methods.UpdateInternetScsiAuthenticationProperties(ctx, h.c.client, &types.UpdateInternetScsiAuthenticationProperties{
				This: h.storage, IScsiHbaDevice: a.Device, AuthenticationProperties: *t.credentials(), TargetSet: set,
			})
		case setTimeouts:
			_, err = methods.UpdateInternetScsiAdvancedOptions(ctx, h.c.client, &types.UpdateInternetScsiAdvancedOptions{This: h.storage, IScsiHbaDevice: a.Device, TargetSet: set, Options: advanced()})
			if err != nil && ctx.Err() == nil {
				done = append(done, Action{h.Name, "skipped", c.detail + ": " + words(err)})
				err = nil
				continue
			}
		}
		if err != nil {
			return done, explain(h.Name+": "+c.action+" "+c.detail, err)
		}
		done = append(done, Action{h.Name, c.action, c.detail})
	}
	return done, nil
}

// UnsetTarget takes our send targets off a host, where no LUN of them has a datastore any
// more. What is not there is no error.
func (h *Host) UnsetTarget(ctx context.Context, portals []string) error {
	s, err := h.look(ctx, Adapters)
	if err != nil {
		return err
	}
	a := s.adapter()
	if a == nil {
		return nil
	}
	var gone []types.HostInternetScsiHbaSendTarget
	for _, p := range portals {
		t, err := sendTarget(p)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(a.ConfiguredSendTarget, func(o types.HostInternetScsiHbaSendTarget) bool { return samePlace(o, t) }) {
			gone = append(gone, t)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	_, err = methods.RemoveInternetScsiSendTargets(ctx, h.c.client, &types.RemoveInternetScsiSendTargets{This: h.storage, IScsiHbaDevice: a.Device, Targets: gone})
	return explain(h.Name+": remove send targets", err)
}
