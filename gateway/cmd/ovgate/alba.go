package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// alba returns the verbs of the object store as a whole.
func (a *app) alba() *cobra.Command {
	status := &cobra.Command{Use: "status", Short: "Show what the object store would survive, its space, and what happened to it", Args: names()}
	status.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		s, err := client.Get[client.Alba](api.GetAlba(ctx))
		if err != nil {
			return err
		}
		return a.printAlba(s)
	})
	survey := &cobra.Command{Use: "survey", Short: "Look at every object now, and repair what is not complete; see task list", Args: names()}
	survey.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		return client.Done(api.SurveyAlba(ctx))
	})
	return group("alba", "The erasure-coded object store", status, survey, a.albaRecover(), a.albaRotateKey())
}

func (a *app) albaRecover() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "recover [NAMESPACE]",
		Short: "Rebuild the records of namespaces from the devices alone",
		Long: "Rebuild the manifests of a namespace, or of all that lost theirs, from what is on the devices: for a node whose DATA/alba/nsm.db\n" +
			"is lost, or a cluster whose registry is. Objects that were deleted lately may come back. See task list and alba status for what came of it.",
	}
	cmd.Flags().BoolVar(&force, "force", false, "also while devices are away: what only they have is lost")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if len(args) > 1 {
			return usagef("%s: unexpected argument %q", verb(cmd), args[1])
		}
		in := client.AlbaRecoverInput{Force: &force}
		if len(args) == 1 {
			in.Namespace = &args[0]
		}
		return client.Done(api.RecoverAlba(ctx, in))
	})
	return cmd
}

func (a *app) albaRotateKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate-key",
		Short: "Draw a new key to wrap the data keys of encrypted presets",
		Long: "Draw a new wrapping key in place of DATA/alba/wrap.key, of the file that alba_key_file names, or, in a cluster, of the one in\n" +
			"the registry, and wrap the data keys of encrypted presets with it. What is stored stays as it is. Copies of the former key open nothing any more: copy the new one.",
		Args: names(),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		k, err := client.Get[client.AlbaKey](api.RotateAlbaKey(ctx))
		if err != nil {
			return err
		}
		return printOne(a, k, [][]string{{"wrapping key", k.ID}, {"data keys", strconv.Itoa(k.DataKeys)}})
	})
	return cmd
}

// albaEventsShown bounds the events below the state.
const albaEventsShown = 10

func (a *app) printAlba(s client.Alba) error {
	rows := [][]string{{"safety", s.Safety}}
	if !s.Made {
		return printOne(a, s, rows)
	}
	rows = append(rows,
		[]string{"cluster", s.Cluster},
		[]string{"surveyed", formatTime(s.SurveyedAt)},
		[]string{"devices", fmt.Sprintf("%d, %d of them not working", s.Osds, s.Failed)},
		[]string{"space", freeText(s.Free, s.Total) + " free, before redundancy"},
		[]string{"objects", fmt.Sprintf("%d, %s, stored as %s", s.Objects, formatSize(s.Bytes), formatSize(s.Stored))},
		[]string{"to repair", strconv.FormatInt(s.Repair, 10)},
	)
	if s.Maintainer != nil {
		rows = append(rows, []string{"maintained by", *s.Maintainer})
	}
	for _, p := range slices.Sorted(maps.Keys(s.Policies)) {
		rows = append(rows, []string{"policy " + p, fmt.Sprintf("%d objects", s.Policies[p])})
	}
	for i, e := range s.Events {
		if i == albaEventsShown {
			break
		}
		rows = append(rows, []string{formatTime(&e.At), string(e.Level) + ": " + e.Message})
	}
	return printOne(a, s, rows)
}

// osd returns the verbs of devices.
func (a *app) osd() *cobra.Command {
	return group("osd", "Devices of the object store: directories of the node, and ASDs", a.osdList(), a.osdShow(), a.osdDiscover(), a.osdClaim(), a.osdMove(),
		a.osdVerb("decommission NUMBER", "Empty a device that works; it leaves when nothing is stored on it any more", "", func(ctx context.Context, api *client.Client, n int64) error {
			o, err := client.Get[client.OSD](api.DecommissionOSD(ctx, n))
			if err != nil {
				return err
			}
			return a.printOSD(o)
		}),
		a.osdReplace(), a.osdPurge(),
		a.osdVerb("verify NUMBER", "Begin to compare everything on a device with its checksums; see task list", "", func(ctx context.Context, api *client.Client, n int64) error {
			return client.Done(api.VerifyOSD(ctx, n))
		}),
		a.osdLocate())
}

func (a *app) osdDiscover() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discover",
		Short: "List the disks of the node, with what they hold",
		Long: "List the disks of the node, with what they hold. On one that is usable, ovgate asd --disk makes a device;\n" +
			"osd claim then makes it part of the object store.",
		Args: names(),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		all, err := client.All(func(cursor *string) ([]client.Disk, *string, error) {
			l, err := client.Get[client.DiskList](api.ListDisks(ctx, &client.ListDisksParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, all, []string{"DISK", "SIZE", "KIND", "MODEL", "SERIAL", "USABLE", "OSD", "HOLDS"}, func(d client.Disk) []string {
			kind, osd := "ssd", "-"
			if d.Rotational {
				kind = "hdd"
			}
			if d.Osd != nil {
				osd = strconv.FormatInt(*d.Osd, 10)
			}
			return []string{d.Path, formatSize(d.Size), kind, dash(text(d.Model)), dash(text(d.Serial)), yesNo(d.Usable), osd, d.Holds}
		})
	})
	return cmd
}

func (a *app) osdLocate() *cobra.Command {
	var on, off bool
	cmd := a.osdVerb("locate NUMBER", "Switch the light at the place of a device's disk", "", func(ctx context.Context, api *client.Client, n int64) error {
		if on == off {
			return usagef("osd locate %d: give --on or --off", n)
		}
		return client.Done(api.LocateOSD(ctx, n, client.OSDLocateInput{On: on}))
	})
	cmd.Flags().BoolVar(&on, "on", false, "light it")
	cmd.Flags().BoolVar(&off, "off", false, "put it out")
	return cmd
}

// osdVerb returns a verb on one device; a question is asked first if there is one.
func (a *app) osdVerb(use, short, question string, fn func(ctx context.Context, api *client.Client, n int64) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: names("NUMBER")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		n, err := osdNumber(cmd, args[0])
		if err != nil {
			return err
		}
		if question != "" {
			if err := a.confirm(ctx, fmt.Sprintf(question, n)); err != nil {
				return err
			}
		}
		return fn(ctx, api, n)
	})
	return cmd
}

func osdNumber(cmd *cobra.Command, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, usagef("%s: %q is not the number of a device; ovgate osd list shows them", verb(cmd), text)
	}
	return n, nil
}

func osdPlace(o client.OSD) string {
	if o.Directory != nil {
		return *o.Directory
	}
	return dash(text(o.Address))
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func osdState(o client.OSD) string {
	if !o.Working {
		return stateText(string(o.State), "not working")
	}
	return string(o.State)
}

func (a *app) osdList() *cobra.Command {
	var node string
	cmd := &cobra.Command{Use: "list", Short: "List the devices", Args: names()}
	cmd.Flags().StringVar(&node, "node", "", "only those of this node")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		all, err := client.All(func(cursor *string) ([]client.OSD, *string, error) {
			l, err := client.Get[client.OSDList](api.ListOSDs(ctx, &client.ListOSDsParams{Limit: new(pageSize), Cursor: cursor, Node: given(node)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, all, []string{"NUMBER", "STATE", "NODE", "USED", "FREE", "FRAGMENTS", "PLACE"}, func(o client.OSD) []string {
			return []string{strconv.FormatInt(o.Number, 10), osdState(o), o.Node, formatSize(o.Used), formatSize(o.Free), strconv.FormatInt(o.Fragments, 10), osdPlace(o)}
		})
	})
	return cmd
}

func (a *app) osdShow() *cobra.Command {
	return a.osdVerb("show NUMBER", "Show a device", "", func(ctx context.Context, api *client.Client, n int64) error {
		o, err := client.Get[client.OSD](api.GetOSD(ctx, n))
		if err != nil {
			return err
		}
		return a.printOSD(o)
	})
}

func (a *app) printOSD(o client.OSD) error {
	rows := [][]string{
		{"number", strconv.FormatInt(o.Number, 10)},
		{"identity", o.UUID},
		{"state", stateText(string(o.State), text(o.Problem))},
		{"node", o.Node},
		{"place", osdPlace(o)},
		{"used", formatSize(o.Used)},
		{"free", formatSize(o.Free)},
		{"fragments", strconv.FormatInt(o.Fragments, 10)},
		{"claimed", formatTime(&o.ClaimedAt)},
		{"observed", formatTime(&o.ObservedAt)},
	}
	if o.Domain != nil {
		rows = append(rows, []string{"domain", *o.Domain})
	}
	if o.Replaces != nil {
		rows = append(rows, []string{"came for", fmt.Sprintf("device %d", *o.Replaces)})
	}
	if o.ReplacedBy != nil {
		rows = append(rows, []string{"replaced by", fmt.Sprintf("device %d", *o.ReplacedBy)})
	}
	if o.SmallReadUs != nil {
		rows = append(rows, []string{"reads", (time.Duration(*o.SmallReadUs) * time.Microsecond).String() + " on average up to 64 KiB"})
	}
	if d := o.Disk; d != nil {
		rows = append(rows, []string{"disk", strings.Join(strings.Fields(d.Path+" "+text(d.Model)+" "+text(d.Serial)), " ")}, []string{"disk health", diskHealth(*d)})
	}
	return printOne(a, o, rows)
}

// diskHealth says what a disk says of itself.
func diskHealth(d client.OSDDisk) string {
	var out []string
	if d.Healthy != nil && *d.Healthy {
		out = append(out, "healthy")
	}
	if d.Temperature != nil {
		out = append(out, fmt.Sprintf("%d degrees Celsius", *d.Temperature))
	}
	if d.Problem != nil {
		out = append(out, *d.Problem)
	}
	return dash(strings.Join(out, ", "))
}

// newOSD are the flags that say what a new device is.
type newOSD struct {
	capacity                           sizeFlag
	fingerprint, keyFile, node, domain string
}

func (n *newOSD) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&n.capacity, "capacity", "directory: most that it may take (default all that its file system has)")
	f.StringVar(&n.fingerprint, "fingerprint", "", "ASD: the fingerprint of its certificate")
	f.StringVar(&n.keyFile, "key-file", "", "ASD: file with its access key")
	f.StringVar(&n.node, "node", "", "ASD: the machine it is on (default its address)")
	f.StringVar(&n.domain, "domain", "", "ASD: what fails together with the machine, such as its rack, if that is no node of the cluster")
}

// input is what a place and the flags name.
func (n *newOSD) input(verb, place string) (in client.OSDInput, err error) {
	if strings.HasPrefix(place, "/") {
		if n.fingerprint+n.keyFile+n.node+n.domain != "" {
			return in, usagef("%s %s: a directory takes no --fingerprint, --key-file, --node or --domain", verb, place)
		}
		in.Directory, in.Capacity = &place, n.capacity.ptr()
		return in, nil
	}
	if n.fingerprint == "" || n.keyFile == "" {
		return in, usagef("%s %s: an ASD needs --fingerprint and --key-file; a directory is written from the root", verb, place)
	}
	key, err := readAccessKey(n.keyFile)
	in.Address, in.Fingerprint, in.AccessKey, in.Node = &place, &n.fingerprint, &key, given(n.node)
	in.Domain = given(n.domain)
	return in, err
}

func (a *app) osdClaim() *cobra.Command {
	var n newOSD
	cmd := &cobra.Command{
		Use:   "claim DIRECTORY|HOST:PORT",
		Short: "Make a directory of the node, or an ASD, part of the object store",
		Long: "Make a directory of the node (a path from the root), or an ASD (its address), part of the object store.\n" +
			"A directory has to be empty. An ASD prints its fingerprint and the place of its access key when it starts.",
		Example: "  ovgate osd claim /mnt/disk7/ovgate\n  ovgate osd claim 10.0.0.6:8500 --fingerprint F --key-file access.key --node storage2",
		Args:    names("DIRECTORY|HOST:PORT"),
	}
	n.flags(cmd)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in, err := n.input("osd claim", args[0])
		if err != nil {
			return err
		}
		o, err := client.Get[client.OSD](api.ClaimOSD(ctx, &client.ClaimOSDParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printOSD(o)
	})
	return cmd
}

func (a *app) osdReplace() *cobra.Command {
	var n newOSD
	cmd := &cobra.Command{
		Use:   "replace NUMBER DIRECTORY|HOST:PORT",
		Short: "Claim a new device in the place of an old one, and empty the old one",
		Long: "Claim a directory of the node, or an ASD, as osd claim does, and empty the old device, which then leaves.\n" +
			"Repeating it goes on with what was begun. task list shows how far it is.",
		Example: "  ovgate osd replace 3 /mnt/disk7/ovgate",
		Args:    names("NUMBER", "DIRECTORY|HOST:PORT"),
	}
	n.flags(cmd)
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		old, err := osdNumber(cmd, args[0])
		if err != nil {
			return err
		}
		in, err := n.input("osd replace", args[1])
		if err != nil {
			return err
		}
		o, err := client.Get[client.OSD](api.ReplaceOSD(ctx, old, in))
		if err != nil {
			return err
		}
		return a.printOSD(o)
	})
	return cmd
}

// maxAccessKey bounds the file of an access key, in bytes.
const maxAccessKey = 4096

func readAccessKey(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", usagef("--key-file: %v", err)
	}
	if st.Size() > maxAccessKey {
		return "", usagef("--key-file %s: it has %d bytes, an access key is 64 hexadecimal digits", path, st.Size())
	}
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

func (a *app) osdMove() *cobra.Command {
	var address, directory, domain string
	cmd := a.osdVerb("move NUMBER", "Change where a device is reached, or what fails together with its machine", "", func(ctx context.Context, api *client.Client, n int64) error {
		if len(slices.DeleteFunc([]string{address, directory, domain}, func(s string) bool { return s == "" })) != 1 {
			return usagef("osd move %d: give one of --address for an ASD, --directory for a device of the node, and --domain", n)
		}
		o, err := client.Get[client.OSD](api.MoveOSD(ctx, n, client.OSDPatch{Address: given(address), Directory: given(directory), Domain: given(domain)}))
		if err != nil {
			return err
		}
		return a.printOSD(o)
	})
	cmd.Flags().StringVar(&address, "address", "", "HOST:PORT of the ASD")
	cmd.Flags().StringVar(&directory, "directory", "", "path of the directory, from the root")
	cmd.Flags().StringVar(&domain, "domain", "", "what fails together with its machine, which is no node; of all devices of the machine")
	return cmd
}

func (a *app) osdPurge() *cobra.Command {
	var accept bool
	cmd := a.osdVerb("purge NUMBER", "Give up a device that does not come back", "Give up device %d for good? What it held is made anew from the others", func(ctx context.Context, api *client.Client, n int64) error {
		return client.Done(api.PurgeOSD(ctx, n, client.OSDPurgeInput{AcceptLoss: &accept}))
	})
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "also when objects cannot be read without it: they are lost")
	return cmd
}

// preset returns the verbs of presets.
func (a *app) preset() *cobra.Command {
	return group("preset", "How the object store keeps objects: policies, compression, encryption", a.presetList(), a.presetShow(), a.presetCreate(), a.presetSet(), a.presetDelete())
}

func (a *app) presetList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the presets", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		all, err := client.All(func(cursor *string) ([]client.Preset, *string, error) {
			l, err := client.Get[client.PresetList](api.ListPresets(ctx, &client.ListPresetsParams{Limit: new(pageSize), Cursor: cursor}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, all, []string{"NAME", "DEFAULT", "NOW", "PIECE", "COMPRESSION", "ENCRYPTED", "SURVIVES"}, func(p client.Preset) []string {
			return []string{p.Name, yesNo(p.Default), dash(p.Now), formatSize(p.PieceSize), p.Compression, yesNo(p.Encrypted), p.Explain}
		})
	})
	return cmd
}

func (a *app) presetShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a preset", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		p, err := client.Get[client.Preset](api.GetPreset(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printPreset(p)
	})
	return cmd
}

func (a *app) printPreset(p client.Preset) error {
	return printOne(a, p, [][]string{
		{"name", p.Name},
		{"policies", strings.Join(p.Policies, " then ")},
		{"spread by", string(p.Spread)},
		{"follows devices", yesNo(p.Automatic)},
		{"now", dash(p.Now)},
		{"survives", p.Explain},
		{"fragment size", formatSize(p.FragmentSize)},
		{"piece size", formatSize(p.PieceSize)},
		{"compression", p.Compression},
		{"encrypted", yesNo(p.Encrypted)},
		{"default", yesNo(p.Default)},
		{"for vPools", yesNo(p.Redundant)},
	})
}

func (a *app) presetCreate() *cobra.Command {
	var policies []string
	var size, piece sizeFlag
	var compression, spread string
	var encrypt bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a preset",
		Long: "Create a preset. A policy is k,m,c,x: data and parity fragments, how many to wait for, how many on one node at most;\n" +
			"with --spread domain, how many in one domain, as the configuration of nodes names them.",
		Example: "  ovgate preset create wide --policy 8,4,10,4 --policy 4,2,5,2 --compression s2 --encrypt",
		Args:    names("NAME"),
	}
	f := cmd.Flags()
	f.StringArrayVar(&policies, "policy", nil, "k,m,c,x; may be repeated, the first that can be met is used (default: what suits the devices, following them)")
	f.Var(&size, "fragment-size", "64KiB-64MiB (default 4MiB)")
	f.Var(&piece, "piece", "4KiB, 16KiB or 64KiB: what a read moves at least; small ones make short reads fast, and manifests long (default 16KiB)")
	f.StringVar(&compression, "compression", "", "none, snappy, s2, zstd or bz2 (default none)")
	f.BoolVar(&encrypt, "encrypt", false, "encrypt fragments (AES-256) with a data key of its own")
	f.StringVar(&spread, "spread", "", "what x counts by: node, or domain, such as a rack (default node)")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.PresetInput{Name: args[0], FragmentSize: size.ptr(), PieceSize: piece.ptr(), Compression: given(compression), Encrypt: &encrypt}
		if spread != "" {
			in.Spread = new(client.PresetInputSpread(spread))
		}
		if len(policies) > 0 {
			in.Policies = &policies
		}
		p, err := client.Get[client.Preset](api.CreatePreset(ctx, &client.CreatePresetParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printPreset(p)
	})
	return cmd
}

func (a *app) presetSet() *cobra.Command {
	var policies []string
	var size, piece sizeFlag
	var def bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a preset",
		Long:  "Change policies or sizes for what is written from now on, or make it the default. Objects are brought to the best policy by themselves, and keep their sizes until then.",
		Args:  names("NAME"),
	}
	f := cmd.Flags()
	f.StringArrayVar(&policies, "policy", nil, "k,m,c,x; may be repeated; replaces all")
	f.Var(&size, "fragment-size", "64KiB-64MiB")
	f.Var(&piece, "piece", "4KiB, 16KiB or 64KiB")
	f.BoolVar(&def, "default", false, "make it the default preset")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.PresetPatch{FragmentSize: size.ptr(), PieceSize: piece.ptr()}
		if len(policies) > 0 {
			in.Policies = &policies
		}
		if def {
			in.Default = &def
		}
		if in.Policies == nil && in.FragmentSize == nil && in.PieceSize == nil && in.Default == nil {
			return usagef("preset set %s: nothing to change; give --policy, --fragment-size, --piece or --default", args[0])
		}
		p, err := client.Get[client.Preset](api.UpdatePreset(ctx, args[0], in))
		if err != nil {
			return err
		}
		return a.printPreset(p)
	})
	return cmd
}

func (a *app) presetDelete() *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "Delete a preset that nothing uses", Args: names("NAME")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.DeletePreset(ctx, args[0]))
	})
	return cmd
}

// namespace returns the verbs of namespaces.
func (a *app) namespace() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{Use: "list", Short: "List the namespaces of the object store, one per vDisk", Args: names()}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only those whose names begin with this")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		all, err := client.All(func(cursor *string) ([]client.Namespace, *string, error) {
			l, err := client.Get[client.NamespaceList](api.ListNamespaces(ctx, &client.ListNamespacesParams{Limit: new(pageSize), Cursor: cursor, Q: given(prefix)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, all, []string{"ID", "NAME", "STATE", "PRESET", "HOST"}, func(n client.Namespace) []string {
			return []string{strconv.FormatInt(n.ID, 10), n.Name, n.State, n.Preset, n.Host}
		})
	})
	return group("namespace", "Namespaces of the object store", cmd)
}
