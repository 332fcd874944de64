package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// maxNames bounds what a pattern of names stands for: a typing error is not to make
// ten million vDisks.
const maxNames = 1000

// template returns the verbs of templates.
func (a *app) template() *cobra.Command {
	return group("template", "Templates: frozen vDisks to clone from", a.templateCreate(), a.templateList(), a.templateClone(), a.templateThaw(), a.templateDelete())
}

func (a *app) templateCreate() *cobra.Command {
	cmd := a.vdiskVerb("create VDISK", "Make a vDisk a template", names("VDISK"),
		func(ctx context.Context, api *client.Client, args []string) error {
			v, err := client.Get[client.VDisk](api.FreezeVDisk(ctx, args[0]))
			if err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Make a vDisk a template: it is frozen, and can only be cloned, thawed and deleted. Unpublish it first."
	return cmd
}

func (a *app) templateList() *cobra.Command {
	var vpool string
	cmd := &cobra.Command{Use: "list", Short: "List templates", Args: names()}
	cmd.Flags().StringVar(&vpool, "vpool", "", "only those of this vPool")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		params := client.ListVDisksParams{Limit: new(pageSize), VPool: given(vpool), State: new(client.VDiskStateTemplate)}
		items, err := client.All(func(cursor *string) ([]client.VDisk, *string, error) {
			params.Cursor = cursor
			l, err := client.Get[client.VDiskList](api.ListVDisks(ctx, &params))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, items, []string{"NAME", "VPOOL", "SIZE", "CREATED"}, func(v client.VDisk) []string {
			return []string{v.Name, v.VPool, formatSize(v.Size), formatTime(&v.Created)}
		})
	})
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
	return cmd
}

func (a *app) templateClone() *cobra.Command {
	var size sizeFlag
	cmd := a.vdiskVerb("clone TEMPLATE NAME...", "Make vDisks from a template; nothing is copied", cobra.MinimumNArgs(2),
		func(ctx context.Context, api *client.Client, args []string) error {
			var all []string
			for _, p := range args[1:] {
				l, err := expandNames(p)
				if err != nil {
					return err
				}
				all = append(all, l...)
			}
			if len(all) > maxNames {
				return usagef("%d names: make at most %d vDisks at a time", len(all), maxNames)
			}
			return a.cloneAll(ctx, api, args[0], all, size.ptr())
		})
	cmd.Long = "Make vDisks from a template. {A..B} in a name stands for the numbers from A to B, with the zeros of A.\n" +
		"If one of the names is taken, none is made, unless what has it is a clone of this template: then a former call\n" +
		"made it, and this one goes on there."
	cmd.Example = "  ovgate template clone golden web-{001..100}"
	cmd.Flags().Var(&size, "size", "size, as large as the template or larger (default the same)")
	return cmd
}

func noTemplate(v client.VDisk, hint string) error {
	return &client.APIError{Status: http.StatusConflict, Code: "invalid", Object: "vdisk " + v.Name, Message: "it is no template", Hint: hint}
}

// cloneAll makes the clones that are not there yet.
func (a *app) cloneAll(ctx context.Context, api *client.Client, template string, all []string, size *int64) error {
	t, err := client.Get[client.VDisk](api.GetVDisk(ctx, template))
	if err != nil {
		return err
	}
	if t.State != client.VDiskStateTemplate {
		return noTemplate(t, "make it one with ovgate template create "+t.Name+", or clone it with ovgate vdisk clone")
	}
	there := map[string]client.VDisk{}
	for _, name := range all {
		v, err := client.Get[client.VDisk](api.GetVDisk(ctx, t.VPool+"/"+name))
		var problem *client.APIError
		switch {
		case errors.As(err, &problem) && problem.Status == http.StatusNotFound:
		case err != nil:
			return err
		case v.Parent == nil || v.Parent.ID != t.ID:
			return &client.APIError{Status: http.StatusConflict, Code: "exists", Object: "vdisk " + v.Name, Message: "it is there, and no clone of " + t.Name, Hint: "choose other names; none was made"}
		default:
			there[name] = v
		}
	}
	made := make([]client.VDisk, 0, len(all))
	for _, name := range all {
		v, ok := there[name]
		if !ok {
			in := client.CloneInput{Name: name, Size: size}
			if v, err = client.Get[client.VDisk](api.CloneVDisk(ctx, t.ID, &client.CloneVDiskParams{IdempotencyKey: new(rand.Text())}, in)); err != nil {
				return fmt.Errorf("%w (%d of %d are there; repeat the command to go on)", err, len(made), len(all))
			}
		}
		made = append(made, v)
	}
	return printList(a, made, []string{"NAME", "VPOOL", "SIZE", "STATE"}, func(v client.VDisk) []string {
		return []string{v.Name, v.VPool, formatSize(v.Size), string(v.State)}
	})
}

// expandNames returns the names that a pattern stands for: its {A..B} is replaced by
// each number from A to B.
func expandNames(pattern string) ([]string, error) {
	before, rest, ok := strings.Cut(pattern, "{")
	if !ok {
		return []string{pattern}, nil
	}
	span, after, closed := strings.Cut(rest, "}")
	from, to, two := strings.Cut(span, "..")
	a, aerr := strconv.ParseUint(from, 10, 32)
	b, berr := strconv.ParseUint(to, 10, 32)
	switch {
	case !closed || !two || aerr != nil || berr != nil || strings.ContainsAny(after, "{}"):
		return nil, usagef("%s: write one range of numbers, such as web-{001..100}", pattern)
	case b < a:
		return nil, usagef("%s: the range ends before it begins", pattern)
	case b-a >= maxNames:
		return nil, usagef("%s: make at most %d vDisks at a time", pattern, maxNames)
	}
	out := make([]string, 0, b-a+1)
	for n := a; n <= b; n++ {
		out = append(out, fmt.Sprintf("%s%0*d%s", before, len(from), n, after))
	}
	return out, nil
}

func (a *app) templateThaw() *cobra.Command {
	return a.vdiskVerb("thaw TEMPLATE", "Make a template a vDisk again", names("TEMPLATE"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if err := client.Done(api.ThawVDisk(ctx, args[0])); err != nil {
				return err
			}
			return a.showVDisk(ctx, api, args[0])
		})
}

func (a *app) templateDelete() *cobra.Command {
	cmd := a.vdiskVerb("delete TEMPLATE", "Delete a template; its clones stay", names("TEMPLATE"),
		func(ctx context.Context, api *client.Client, args []string) error {
			v, err := client.Get[client.VDisk](api.GetVDisk(ctx, args[0]))
			var problem *client.APIError
			if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
				return nil
			}
			if err != nil {
				return err
			}
			if v.State != client.VDiskStateTemplate {
				return noTemplate(v, "delete it with ovgate vdisk delete "+v.Name)
			}
			if err := a.confirm(ctx, "Delete template "+v.Name+"? Its clones stay."); err != nil {
				return err
			}
			return client.Done(api.DeleteVDisk(ctx, v.ID, nil))
		})
	return cmd
}

func (a *app) vdiskFlatten() *cobra.Command {
	var wait, cancel bool
	cmd := a.vdiskVerb("flatten NAME", "Copy what a clone inherits, so that it needs its parent no more", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if cancel {
				if err := client.Done(api.CancelFlattenVDisk(ctx, args[0])); err != nil {
					return err
				}
				return a.showVDisk(ctx, api, args[0])
			}
			v, err := client.Get[client.VDisk](api.FlattenVDisk(ctx, args[0]))
			if wait && err == nil {
				v, err = follow(ctx, v, func(v client.VDisk) bool { return v.Flatten != nil }, func() (client.VDisk, error) {
					return client.Get[client.VDisk](api.GetVDisk(ctx, v.ID))
				})
			}
			if err != nil {
				return err
			}
			if wait && v.Parent != nil {
				return fmt.Errorf("vdisk %s: the flatten was stopped before it was done", v.Name)
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Copy what a clone inherits, so that it needs its parent no more. It goes on in the background and through\n" +
		"restarts, and yields to initiators; vdisk show tells how far it is."
	cmd.Flags().BoolVar(&wait, "wait", false, "return when it is done")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "stop it; the next one goes on where it was")
	cmd.MarkFlagsMutuallyExclusive("wait", "cancel")
	return cmd
}

// flattenText prints how far a flatten is.
func flattenText(p *client.FlattenProgress) string {
	if p.Total == 0 {
		return "about to begin"
	}
	return fmt.Sprintf("%s of %s copied", formatSize(p.Copied), formatSize(p.Total))
}
