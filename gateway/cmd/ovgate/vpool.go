package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// pageSize is how many items are asked for at once: the API's most.
const pageSize = 1000

// vpool returns the verbs of vPools.
func (a *app) vpool() *cobra.Command {
	return group("vpool", "vPools: backends with the settings of their vDisks",
		a.vpoolCreate(), a.vpoolList(), a.vpoolShow(), a.vpoolSet(), a.vpoolDelete(), a.vpoolRecover(), a.vpoolKey(), a.vpoolSweep(), a.vpoolPerformance())
}

// settingsFlags are the flags of a vPool's settings.
type settingsFlags struct {
	clusterSize, scoSize, journalQuota sizeFlag
	commitInterval, stallTimeout       time.Duration
	history, trash, verifyInterval     time.Duration
	oversubscription                   int
	lostTail, dtl                      string
}

// add adds the flags to a verb.
func (s *settingsFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&s.clusterSize, "cluster-size", "unit of mapping for new vDisks: 4, 8, 16, 32 or 64KiB (default 4KiB)")
	f.Var(&s.scoSize, "sco-size", "size of data objects for new vDisks: 4-128MiB, a power of two (default 16MiB)")
	f.Var(&s.journalQuota, "journal-quota", "journal of each vDisk: 128MiB-10GiB (default 512MiB)")
	f.DurationVar(&s.commitInterval, "commit-interval", 0, "longest time between commits to the backend: 100ms-10m (default 10s)")
	f.DurationVar(&s.stallTimeout, "stall-timeout", 0, "how long a write waits when the journal is full: 1s-1h (default 3m)")
	f.DurationVar(&s.history, "history", 0, "how far back scrubs keep every moment, such as 24h: 1m-8784h (default 0, none)")
	f.DurationVar(&s.trash, "trash", 0, "how long deleted vDisks are kept: 1m-8784h, or 0s for not at all (default 24h)")
	f.DurationVar(&s.verifyInterval, "verify-interval", 0, "within which time each vDisk is read and checked: 1h-8784h, or 0s for only when asked (default 720h)")
	f.IntVar(&s.oversubscription, "oversubscription", 0, "most that the sizes of the vDisks may come to, in percent of the backend's disk (default 0, no bound)")
	f.StringVar(&s.dtl, "dtl", "", "mirror journals on another node: off, async, or sync, where a write is answered when both have it (default sync)")
	f.StringVar(&s.lostTail, "lost-tail", "", "vDisks that lost acknowledged writes: offline until accepted, or accept (default offline)")
}

// input returns what was given, nil for nothing.
// wholeMillis is the value of a flag in ms; what is less than one must not become 0, which
// says something else.
func wholeMillis(flag string, d time.Duration) (int64, error) {
	if d%time.Millisecond != 0 {
		return 0, usagef("--%s %s: write whole milliseconds", flag, d)
	}
	return d.Milliseconds(), nil
}

func (s *settingsFlags) input(cmd *cobra.Command) (*client.VPoolSettingsInput, error) {
	in := client.VPoolSettingsInput{
		ClusterSize: s.clusterSize.ptr(), ScoSize: s.scoSize.ptr(), JournalQuota: s.journalQuota.ptr(),
	}
	given := s.clusterSize.set || s.scoSize.set || s.journalQuota.set
	for _, d := range []struct {
		flag string
		from time.Duration
		to   **int64
	}{
		{"commit-interval", s.commitInterval, &in.CommitIntervalMs},
		{"stall-timeout", s.stallTimeout, &in.StallTimeoutMs},
		{"history", s.history, &in.HistoryMs},
		{"trash", s.trash, &in.TrashMs},
		{"verify-interval", s.verifyInterval, &in.VerifyIntervalMs},
	} {
		if !cmd.Flags().Changed(d.flag) {
			continue
		}
		ms, err := wholeMillis(d.flag, d.from)
		if err != nil {
			return nil, err
		}
		*d.to, given = &ms, true
	}
	if cmd.Flags().Changed("oversubscription") {
		in.OversubscriptionPercent, given = &s.oversubscription, true
	}
	if cmd.Flags().Changed("dtl") {
		mode := client.DtlMode(s.dtl)
		if !mode.Valid() {
			return nil, usagef("--dtl %s: write off, async or sync", s.dtl)
		}
		in.Dtl, given = &mode, true
	}
	if cmd.Flags().Changed("lost-tail") {
		policy := client.LostTailPolicy(s.lostTail)
		if !policy.Valid() {
			return nil, usagef("--lost-tail %s: write offline or accept", s.lostTail)
		}
		in.LostTail, given = &policy, true
	}
	if !given {
		return nil, nil
	}
	return &in, nil
}

// backendFlags are the flags of a vPool's backend.
type backendFlags struct{ kind, path, preset, store string }

// add adds the flags to a verb.
func (b *backendFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.kind, "backend", "", "kind of backend: alba, the node's object store over its devices; local, a directory; swift or s3 (default local, or that of --store)")
	cmd.Flags().StringVar(&b.store, "store", "", "name of a registered Swift or S3 backend, see ovgate backend")
	cmd.Flags().StringVar(&b.preset, "preset", "", "with alba: the preset that says how objects are stored (default the default preset)")
	cmd.Flags().StringVar(&b.path, "path", "", "local: directory on the node that holds the data (default a place in the node's data directory); alba, swift, s3: what the names of its objects begin with (default the vPool's name)")
}

// local tells whether what was given is a directory.
func (b *backendFlags) local() bool {
	return b.store == "" && (b.kind == "" || b.kind == string(client.BackendKindLocal))
}

// input returns the backend that was given.
func (b *backendFlags) input(ctx context.Context, a *app, api *client.Client) (client.Backend, error) {
	kind := client.BackendKind(b.kind)
	switch {
	case kind == "" && b.store == "":
		kind = client.BackendKindLocal
	case kind == "":
		r, err := client.Get[client.RemoteBackend](api.GetBackend(ctx, b.store))
		if err != nil {
			return client.Backend{}, err
		}
		kind = client.BackendKind(r.Kind)
	case !kind.Valid():
		return client.Backend{}, usagef("--backend %s: the kinds are: %s, %s, %s, %s", b.kind, client.BackendKindAlba, client.BackendKindLocal, client.BackendKindSwift, client.BackendKindS3)
	}
	if b.preset != "" && kind != client.BackendKindAlba {
		return client.Backend{}, usagef("--preset %s: only the alba backend has presets", b.preset)
	}
	remote := kind == client.BackendKindSwift || kind == client.BackendKindS3
	switch {
	case b.store != "" && !remote:
		return client.Backend{}, usagef("--store %s: the %s backend is not a registered one", b.store, kind)
	case b.store == "" && remote:
		return client.Backend{}, usagef("--backend %s: --store is missing: which one; ovgate backend list shows them", kind)
	case kind != client.BackendKindLocal:
		return client.Backend{Kind: kind, Path: b.path, Preset: b.preset, Store: b.store}, nil
	}
	path, err := a.backendPath(b.path)
	return client.Backend{Kind: kind, Path: path}, err
}

func (a *app) vpoolCreate() *cobra.Command {
	var settings settingsFlags
	var backend backendFlags
	var encrypt bool
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Create a vPool",
		Example: "  ovgate vpool create fast --path /srv/fast --sco-size 32MiB\n  ovgate vpool create archive --store rgw --encrypt",
		Args:    names("NAME"),
	}
	settings.add(cmd)
	backend.add(cmd)
	cmd.Flags().BoolVar(&encrypt, "encrypt", false, "encrypt its objects with a key of its own; keep what ovgate vpool key prints")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.VPoolInput{Name: args[0], Encrypt: &encrypt}
		var err error
		if in.Backend, err = backend.input(ctx, a, api); err != nil {
			return err
		}
		if in.Settings, err = settings.input(cmd); err != nil {
			return err
		}
		v, err := client.Get[client.VPool](api.CreateVPool(ctx, &client.CreateVPoolParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printVPool(v)
	})
	return cmd
}

func (a *app) vpoolList() *cobra.Command {
	var query, sort string
	cmd := &cobra.Command{Use: "list", Short: "List vPools", Args: names()}
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name contains this")
	cmd.Flags().StringVar(&sort, "sort", "", "name, created, stored or provisioned; - in front reverses")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.VPool, *string, error) {
			l, err := client.Get[client.VPoolList](api.ListVPools(ctx, &client.ListVPoolsParams{
				Limit: new(pageSize), Cursor: cursor, Q: given(query), Sort: given(sort),
			}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		header := []string{"NAME", "STATE", "VDISKS", "PROVISIONED", "STORED", "FREE", "BACKEND"}
		return printList(a, items, header, func(v client.VPool) []string {
			return []string{v.Name, string(v.State), strconv.Itoa(v.Vdisks), formatSize(v.Provisioned),
				formatSize(v.Stored), freeText(v.Free, v.Total), backendText(v.Backend)}
		})
	})
	return cmd
}

func (a *app) vpoolShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a vPool", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		v, err := client.Get[client.VPool](api.GetVPool(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printVPool(v)
	})
	cmd.ValidArgsFunction = a.completeVPools
	return cmd
}

func (a *app) vpoolSet() *cobra.Command {
	var settings settingsFlags
	var name string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Rename a vPool or change its settings",
		Long:  "Rename a vPool or change its settings. --cluster-size and --sco-size are for new vDisks, the rest applies to running ones too.",
		Args:  names("NAME"),
	}
	settings.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "new name")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.VPoolPatch{Name: given(name)}
		var err error
		if in.Settings, err = settings.input(cmd); err != nil {
			return err
		}
		if in.Name == nil && in.Settings == nil {
			return usagef("vpool set %s: nothing to change was given", args[0])
		}
		v, err := client.Get[client.VPool](api.UpdateVPool(ctx, args[0], in))
		if err != nil {
			return err
		}
		return a.printVPool(v)
	})
	cmd.ValidArgsFunction = a.completeVPools
	return cmd
}

func (a *app) vpoolDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "Delete a vPool that has no vDisks", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Delete vPool "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteVPool(ctx, args[0]))
	})
	cmd.ValidArgsFunction = a.completeVPools
	return cmd
}

func (a *app) vpoolRecover() *cobra.Command {
	var settings settingsFlags
	var backend backendFlags
	var accept bool
	var keyFile string
	cmd := &cobra.Command{
		Use:   "recover NAME --path DIR",
		Short: "Register a vPool and its vDisks from what a backend holds",
		Long: "Register a vPool and its vDisks from what a backend holds, for a node that lost its data directory.\n" +
			"vDisks that may miss acknowledged writes come back offline (lost_tail), unless --accept-loss.",
		Args: names("NAME"),
	}
	settings.add(cmd)
	backend.add(cmd)
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with what ovgate vpool key printed, for one whose objects are encrypted; - for standard input")
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "serve vDisks that may miss acknowledged writes")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.VPoolRecoverInput{Name: args[0], AcceptLoss: &accept}
		if backend.path == "" && backend.local() {
			return usagef("vpool recover %s: --path is missing: the directory that the vPool was created with", args[0])
		}
		var err error
		if in.Backend, err = backend.input(ctx, a, api); err != nil {
			return err
		}
		if in.Settings, err = settings.input(cmd); err != nil {
			return err
		}
		if in.Key, err = a.keyText(ctx, keyFile); err != nil {
			return err
		}
		r, err := client.Get[client.VPoolRecovery](api.RecoverVPool(ctx, &client.RecoverVPoolParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printRecovery(r)
	})
	return cmd
}

// maxKey bounds a file with a key, in bytes.
const maxKey = 256

// keyText reads a key from a file; nil: none was named.
func (a *app) keyText(ctx context.Context, name string) (*string, error) {
	switch name {
	case "":
		return nil, nil
	case "-":
		s, err := a.secretLine(ctx, "key")
		return &s, err
	}
	s, err := readBounded(name, maxKey)
	return &s, err
}

func (a *app) vpoolKey() *cobra.Command {
	cmd := &cobra.Command{Use: "key NAME", Short: "Print the key that a vPool's objects are encrypted with", Args: names("NAME"), ValidArgsFunction: a.completeVPools}
	cmd.Long = "Print the key that a vPool's objects are encrypted with. Keep it apart from the node: whoever recovers the vPool after\n" +
		"the node's data directory was lost needs it, and without it the objects are lost too."
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		k, err := client.Get[client.VPoolKey](api.GetVPoolKey(ctx, args[0]))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, k)
		}
		_, err = fmt.Fprintln(a.out, k.Key)
		return err
	})
	return cmd
}

// printRecovery prints what a recovery found.
func (a *app) printRecovery(r client.VPoolRecovery) error {
	rows := [][]string{{"VDISK", "SIZE", "STATE", "CLEAN", "KNOWN", "EPOCH", "LAST SEQ", "LAST COMMIT"}}
	for _, d := range r.Vdisks {
		rows = append(rows, []string{d.Name, formatSize(d.Size), string(d.State), yesNo(d.Clean), yesNo(d.Known),
			strconv.FormatInt(d.Epoch, 10), strconv.FormatInt(d.LastSeq, 10), formatTime(&d.Time)})
	}
	return printOne(a, r, rows)
}

// printVPool prints a vPool.
func (a *app) printVPool(v client.VPool) error {
	s := v.Settings
	rows := [][]string{
		{"name", v.Name},
		{"id", v.ID},
		{"state", stateText(string(v.State), v.StateReason)},
		{"backend", backendText(v.Backend)},
		{"encrypted", keyIDText(v.KeyID)},
		{"vdisks", strconv.Itoa(v.Vdisks)},
		{"provisioned", formatSize(v.Provisioned)},
		{"mapped", formatSize(v.Mapped)},
		{"stored", formatSize(v.Stored)},
	}
	if v.Trashed > 0 {
		rows = append(rows, []string{"in trash", fmt.Sprintf("%d vDisks, %s of stored", v.Trashed, formatSize(v.TrashStored))})
	}
	rows = append(rows, requestRows(v.Requests)...)
	return printOne(a, v, append(rows, [][]string{
		{"free", freeText(v.Free, v.Total)},
		{"cluster size", formatSize(s.ClusterSize)},
		{"sco size", formatSize(s.ScoSize)},
		{"journal quota", formatSize(s.JournalQuota)},
		{"commit interval", formatMillis(s.CommitIntervalMs)},
		{"stall timeout", formatMillis(s.StallTimeoutMs)},
		{"dtl", string(s.Dtl)},
		{"history", formatMillis(s.HistoryMs)},
		{"trash", formatMillis(s.TrashMs)},
		{"verify interval", formatMillis(s.VerifyIntervalMs)},
		{"size limit", percentText(s.OversubscriptionPercent)},
		{"lost tail", string(s.LostTail)},
		{"created", formatTime(&v.Created)},
		{"observed", formatTime(&v.ObservedAt)},
	}...))
}

// backendText prints a backend.
func backendText(b client.Backend) string {
	text := string(b.Kind) + ":" + b.Path
	if b.Store != "" {
		text = string(b.Kind) + ":" + b.Store + "/" + b.Path
	}
	if b.Preset != "" {
		text += " preset " + b.Preset
	}
	return text
}

// keyIDText says whether objects are encrypted.
func keyIDText(id *string) string {
	if id == nil {
		return "no"
	}
	return "with key " + *id
}

// freeText prints the free bytes of a disk; a total of 0 is unknown.
func freeText(free, total int64) string {
	if total == 0 {
		return "unknown"
	}
	return formatSize(free) + " of " + formatSize(total)
}

// stateText prints a state with its reason.
func stateText(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + reason
}

// given returns nil for an empty text.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// percentText prints a bound in percent; 0: none.
func percentText(n int) string {
	if n == 0 {
		return "no bound"
	}
	return strconv.Itoa(n) + " % of the disk"
}
