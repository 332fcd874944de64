package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Errors.
var (
	// ErrCredentials: user, password, token or cookie is not valid. It says no
	// more on purpose (A3).
	ErrCredentials = errors.New("wrong credentials")
	// ErrInvalid: a parameter is out of range; nothing changed.
	ErrInvalid = errors.New("invalid")
	// ErrExists: the name of the user or group is taken.
	ErrExists = errors.New("exists already")
	// ErrNotFound: no such user, group, token or client.
	ErrNotFound = errors.New("not found")
	// ErrLastManager: the change would leave nobody with role manage (A5).
	ErrLastManager = errors.New("nobody with a password would have role manage")
	// ErrAbove: a token or client would have more rights than who asks for it.
	ErrAbove = errors.New("nobody gives away more than they may")
	// ErrNoSetup: a user exists, the set-up is over.
	ErrNoSetup = errors.New("set-up is done already: sign in")
	// ErrTooMany: a bound on stored objects is reached.
	ErrTooMany = errors.New("too many")
)

// FieldError is an ErrInvalid that names what is wrong: the field of the request,
// the object it is about ("user anna"; empty: unknown), and what to do.
type FieldError struct{ Field, Object, Message, Hint string }

func (e *FieldError) Error() string {
	s := e.Message
	if e.Object != "" {
		s = e.Object + ": " + s
	}
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Is matches ErrInvalid.
func (e *FieldError) Is(err error) bool { return err == ErrInvalid }

// nameHint says what namePattern takes.
const nameHint = "use 1 to 64 letters, digits, '.', '_', '@' and '-', beginning with a letter or digit"

// objectOf names a user or token in an error; what is not a name is cut short.
func objectOf(kind, name string) string {
	if r := []rune(strings.ToValidUTF8(name, "?")); len(r) > maxName {
		name = string(r[:maxName])
	}
	return strings.TrimSpace(kind + " " + name)
}

// maxName is the length of the longest name, as in namePattern.
const maxName = 64

// RateError says how long the caller waits before the next attempt.
type RateError struct{ After time.Duration }

func (e *RateError) Error() string {
	return fmt.Sprintf("too many sign-in attempts: try again in %s", e.After.Round(time.Second))
}

// Limits and life times.
const (
	IdleLimit     = 30 * time.Minute // of a browser session without requests
	AbsoluteLimit = 8 * time.Hour    // of a browser session
	// MaxTokenLife bounds a bearer token's expiry when one is given.
	MaxTokenLife = 10 * 365 * 24 * time.Hour
	// Bounds that keep every record in memory cheap.
	maxUsers    = 10_000
	maxTokens   = 10_000
	maxSessions = 10_000
	// maxUserSessions: the oldest goes when a user signs in once more.
	maxUserSessions = 20
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// Service is the authority. Safe for concurrent use.
type Service struct {
	store *model.Store
	clock clock.Clock
	log   *slog.Logger
	// refused is told of each sign-in with a wrong name or password.
	refused func(address string)
	hasher  hasher
	limit   *limiter
	decoy   string // a hash nobody's password matches, for A3

	mu   sync.Mutex
	seen map[string]time.Time // session hash -> last request, since this start
	// usersMu is held over a check of A5 and the change it allows.
	usersMu sync.Mutex
}

// New returns a Service over store. clk nil is the machine's clock, log nil discards.
func New(ctx context.Context, store *model.Store, clk clock.Clock, log *slog.Logger, refused func(address string)) (*Service, error) {
	if clk == nil {
		clk = clock.Real{}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if refused == nil {
		refused = func(string) {}
	}
	s := &Service{store: store, clock: clk, log: log, refused: refused, hasher: newHasher(), limit: newLimiter(), seen: map[string]time.Time{}}
	random, err := secret("")
	if err != nil {
		return nil, err
	}
	if s.decoy, err = s.hasher.hash(ctx, random); err != nil {
		return nil, err
	}
	return s, nil
}

// secret draws 256 bits.
func secret(prefix string) (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw a secret: %w", err)
	}
	return prefix + base64.RawURLEncoding.EncodeToString(b[:]), nil
}

func digest(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// NeedsSetup tells whether no user exists yet.
func (s *Service) NeedsSetup() bool { return len(s.store.Users()) == 0 }

// NewSetupToken makes a set-up token while no user exists and returns it; the
// one before is void. Empty when a user exists.
func (s *Service) NewSetupToken(ctx context.Context) (string, error) {
	if !s.NeedsSetup() {
		return "", nil
	}
	t, err := secret("ovs_")
	if err != nil {
		return "", err
	}
	return t, s.store.SetSetup(ctx, digest(t))
}

// Setup makes the first user, with role manage, and consumes the set-up token.
func (s *Service) Setup(ctx context.Context, addr, token, name, password string) (model.User, error) {
	if !s.NeedsSetup() {
		return model.User{}, ErrNoSetup
	}
	keys := []string{addrKey(addr)}
	if wait := s.limit.take(s.clock.Now(), keys...); wait > 0 {
		return model.User{}, &RateError{wait}
	}
	want, err := s.store.Setup(ctx)
	if err != nil {
		return model.User{}, err
	}
	if want == "" || !same(digest(token), want) {
		return model.User{}, fmt.Errorf("set-up token: %w", ErrCredentials)
	}
	s.limit.giveBack(s.clock.Now(), keys...)
	u, err := s.newUser(ctx, name, password, RoleManage)
	if err != nil {
		return u, err
	}
	u, err = s.store.CreateFirstUser(ctx, u, want)
	if errors.Is(err, model.ErrConflict) || errors.Is(err, model.ErrExists) {
		return u, ErrNoSetup
	}
	if err == nil {
		s.log.Info("first user created", "user", u.Name)
	}
	return u, err
}

func (s *Service) newUser(ctx context.Context, name, password string, role Role) (model.User, error) {
	if !namePattern.MatchString(name) {
		return model.User{}, &FieldError{"name", objectOf("user", name), "this is not a user name", nameHint}
	}
	if err := checkNewPassword(name, password); err != nil {
		return model.User{}, err
	}
	h, err := s.hasher.hash(ctx, password)
	if err != nil {
		return model.User{}, err
	}
	return model.User{Name: name, Role: string(role), Password: h, Created: s.clock.Now().UTC()}, nil
}

// Session is a browser session just made; Cookie and CSRF exist only here.
type Session struct {
	Cookie, CSRF string
	User         model.User
	Expires      time.Time
}

// CheckPassword verifies a user's own password, with the limits of Login.
func (s *Service) CheckPassword(ctx context.Context, addr, name, password string) error {
	_, err := s.checkPassword(ctx, addr, name, password)
	return err
}

// Login verifies a password and makes a browser session.
func (s *Service) Login(ctx context.Context, addr, name, password string) (Session, error) {
	u, err := s.checkPassword(ctx, addr, name, password)
	if err != nil {
		return Session{}, err
	}
	return s.openSession(ctx, addr, "", u)
}

func (s *Service) checkPassword(ctx context.Context, addr, name, password string) (model.User, error) {
	// A digest, because a name of a request can be long.
	keys := []string{addrKey(addr), "user/" + digest(name)}
	if wait := s.limit.take(s.clock.Now(), keys...); wait > 0 {
		return model.User{}, &RateError{wait}
	}
	u, known := s.store.User(name)
	hash := u.Password
	if !known || u.External != nil {
		known, hash = false, s.decoy // an external user has no password (A7)
	}
	ok, err := s.hasher.verify(ctx, password[:min(len(password), maxPasswordBytes+1)], hash)
	if err != nil {
		return model.User{}, err
	}
	if !ok || !known {
		s.log.Warn("sign-in refused", "address", addr)
		s.refused(addr)
		return model.User{}, ErrCredentials
	}
	s.limit.giveBack(s.clock.Now(), keys...)
	return u, nil
}

// openSession makes a browser session; console is where a provider sent its user back to.
func (s *Service) openSession(ctx context.Context, addr, console string, u model.User) (Session, error) {
	if err := s.pruneSessions(ctx, u.Name); err != nil {
		return Session{}, err
	}
	cookie, err := secret("")
	if err != nil {
		return Session{}, err
	}
	csrf, err := secret("")
	if err != nil {
		return Session{}, err
	}
	now := s.clock.Now()
	rec := model.Session{Hash: digest(cookie), User: u.Name, CSRF: digest(csrf), Created: now.UTC(), Address: addr, Console: console}
	if _, err := s.store.CreateSession(ctx, rec); err != nil {
		return Session{}, err
	}
	s.touch(rec.Hash, now)
	return Session{Cookie: cookie, CSRF: csrf, User: u, Expires: now.Add(AbsoluteLimit)}, nil
}

// pruneSessions removes ended sessions, and a user's oldest when there are too many.
func (s *Service) pruneSessions(ctx context.Context, user string) error {
	now := s.clock.Now()
	var mine []model.Session
	total := 0
	for _, v := range s.store.Sessions() {
		switch {
		case !s.alive(v, now):
			if err := s.EndSession(ctx, v.Hash); err != nil {
				return err
			}
		case v.User == user:
			mine = append(mine, v)
			total++
		default:
			total++
		}
	}
	slices.SortFunc(mine, func(a, b model.Session) int { return a.Created.Compare(b.Created) })
	for len(mine) >= maxUserSessions {
		if err := s.EndSession(ctx, mine[0].Hash); err != nil {
			return err
		}
		mine = mine[1:]
		total--
	}
	if total >= maxSessions {
		return fmt.Errorf("browser sessions: %w: %d are open", ErrTooMany, total)
	}
	return nil
}

func (s *Service) touch(hash string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[hash] = now
}

// alive applies the idle and the absolute limit. A session not seen since this
// start counts as idle from its creation or from the start, whichever is later.
func (s *Service) alive(v model.Session, now time.Time) bool {
	s.mu.Lock()
	last, ok := s.seen[v.Hash]
	if !ok {
		last = now
		s.seen[v.Hash] = now
	}
	s.mu.Unlock()
	return now.Sub(last) < IdleLimit && now.Before(v.Created.Add(AbsoluteLimit))
}

// Browser returns who a cookie belongs to. It counts as activity when active.
func (s *Service) Browser(cookie string, active bool) (Principal, error) {
	now := s.clock.Now()
	v, ok := s.store.Session(digest(cookie))
	if !ok || !s.alive(v, now) {
		return Principal{}, ErrCredentials
	}
	u, ok := s.store.User(v.User)
	if !ok || !s.vouched(u) {
		return Principal{}, ErrCredentials
	}
	if active {
		s.touch(v.Hash, now)
	}
	return Principal{Name: u.Name, User: u.Name, Rights: s.RightsOf(u), Session: v.Hash, External: u.External != nil, Expires: v.Created.Add(AbsoluteLimit)}, nil
}

// CheckCSRF tells whether token is the session's.
func (s *Service) CheckCSRF(p Principal, token string) bool {
	v, ok := s.store.Session(p.Session)
	return ok && token != "" && same(digest(token), v.CSRF)
}

// EndSession ends a browser session; absent is no error.
func (s *Service) EndSession(ctx context.Context, hash string) error {
	if err := s.store.DeleteSession(ctx, hash); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.seen, hash)
	s.mu.Unlock()
	return nil
}

// endSessionsOf ends the sign-ins of a user, in browsers and through clients.
func (s *Service) endSessionsOf(ctx context.Context, user string) error {
	if err := s.endGiven(ctx, func(_, family, of string) bool { return family != "" && of == user }); err != nil {
		return err
	}
	for _, v := range s.store.Sessions() {
		if v.User == user {
			if err := s.EndSession(ctx, v.Hash); err != nil {
				return err
			}
		}
	}
	return nil
}

// Bearer returns who a bearer token belongs to. A token never exceeds the
// present rights of its user (A9).
func (s *Service) Bearer(token string) (Principal, error) {
	if !strings.HasPrefix(token, "ovg_") {
		return Principal{}, ErrCredentials
	}
	t, ok := s.store.TokenByHash(digest(token))
	if !ok || (!t.Expires.IsZero() && !s.clock.Now().Before(t.Expires)) {
		return Principal{}, ErrCredentials
	}
	return s.principalOf(t)
}

// principalOf is who a token that has not expired belongs to.
func (s *Service) principalOf(t model.Token) (Principal, error) {
	p := Principal{Name: t.Name, Rights: rightsOf(t.Role, t.Grants), Token: t.ID, Expires: t.Expires}
	if t.Node {
		// A node that left or was removed has no say any more.
		if _, member := s.store.Node(t.Of); t.Of != "" && !member {
			return Principal{}, ErrCredentials
		}
		return p, nil
	}
	u, ok := s.store.User(t.User)
	if !ok || !s.vouched(u) {
		return Principal{}, ErrCredentials
	}
	p.User, p.External = u.Name, u.External != nil
	p.Rights = p.Rights.within(s.RightsOf(u))
	return p, nil
}

// Now returns a principal with the rights that it has by now; false: its session or token does
// not count any more.
func (s *Service) Now(p Principal) (Principal, bool) {
	if !p.Expires.IsZero() && !s.clock.Now().Before(p.Expires) {
		return Principal{}, false
	}
	if p.Token != "" {
		t, ok := s.store.Token(p.Token)
		if !ok {
			return Principal{}, false
		}
		now, err := s.principalOf(t)
		return now, err == nil
	}
	if _, ok := s.store.Session(p.Session); !ok {
		return Principal{}, false
	}
	u, ok := s.store.User(p.User)
	if !ok || !s.vouched(u) {
		return Principal{}, false
	}
	p.Rights = s.RightsOf(u)
	return p, true
}
