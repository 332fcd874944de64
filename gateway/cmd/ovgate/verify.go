package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// errDamaged is the end of a verification that found damage.
var errDamaged = errors.New("objects on the backend are damaged")

func (a *app) vdiskVerify() *cobra.Command {
	var rate sizeFlag
	var background, last, cancel bool
	cmd := a.vdiskVerb("verify NAME", "Read all that a vDisk has on its backend, and check it", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			switch {
			case last && cancel || last && background || cancel && background:
				return usagef("vdisk verify %s: give one of --last, --cancel and --background", args[0])
			case cancel:
				return client.Done(api.CancelVDiskVerification(ctx, args[0]))
			case last:
				v, err := client.Get[client.Verification](api.GetVDiskVerification(ctx, args[0]))
				if err != nil {
					return err
				}
				return a.printVerification(v)
			}
			v, err := client.Get[client.Verification](api.VerifyVDisk(ctx, args[0], client.VerifyInput{BytesPerSecond: rate.ptr()}))
			if err == nil && !background {
				v, err = a.waitVerified(ctx, api, args[0], v)
			}
			if err != nil {
				return err
			}
			return a.printVerification(v)
		})
	cmd.Long = "Read every object of a vDisk's log, snapshots and history, and of what a clone inherits, and check every checksum.\n" +
		"Nothing is changed, and other requests go first. What is damaged is listed with what it hits; the exit code is then 1.\n" +
		"Interrupting the command ends the verification; with --background it goes on."
	cmd.Example = "  ovgate vdisk verify db1 --rate 50MiB"
	f := cmd.Flags()
	f.Var(&rate, "rate", "most bytes that are read in a second (default what other requests leave)")
	f.BoolVar(&background, "background", false, "do not wait for the end")
	f.BoolVar(&last, "last", false, "show how far it is, or the newest result")
	f.BoolVar(&cancel, "cancel", false, "end the verification that is under way")
	return cmd
}

// waitVerified waits until a verification has ended; it is ended when ctx is.
func (a *app) waitVerified(ctx context.Context, api *client.Client, name string, v client.Verification) (client.Verification, error) {
	p := a.progress("verified")
	defer p.end()
	again := time.NewTicker(pollEvery)
	defer again.Stop()
	for v.State == client.VerificationStateWaiting || v.State == client.VerificationStateRunning {
		p.show(v.Bytes, v.Total)
		select {
		case <-again.C:
		case <-ctx.Done():
			// The context is over; what is left to say needs one of its own.
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
			defer cancel()
			return v, errors.Join(ctx.Err(), client.Done(api.CancelVDiskVerification(stop, name)))
		}
		var err error
		if v, err = client.Get[client.Verification](api.GetVDiskVerification(ctx, name)); err != nil {
			return v, err
		}
	}
	return v, nil
}

// printVerification prints a verification; damage is an error.
func (a *app) printVerification(v client.Verification) error {
	rows := [][]string{
		{"vdisk", v.VDisk},
		{"state", stateText(string(v.State), v.Error)},
		{"started", formatTime(v.StartedAt)},
		{"ended", formatTime(v.EndedAt)},
		{"up to seq", strconv.FormatInt(v.Seq, 10)},
		{"checked", formatSize(v.Bytes) + " of " + formatSize(v.Total) + ", " + strconv.FormatInt(v.Clusters, 10) + " clusters"},
		{"damaged", fmt.Sprintf("%d objects, %d clusters", v.BadObjects, v.BadClusters)},
	}
	for _, d := range v.Damage {
		rows = append(rows, []string{"", d.Object + ": " + d.Why}, []string{"  hits", hitsText(d)})
		for _, r := range d.Ranges {
			rows = append(rows, []string{"  lba", fmt.Sprintf("%d to %d", r.Offset/512, (r.Offset+r.Length)/512-1)})
		}
	}
	if err := printOne(a, v, rows); err != nil {
		return err
	}
	switch {
	case v.BadObjects > 0:
		return fmt.Errorf("vdisk %s: %d %w", v.VDisk, v.BadObjects, errDamaged)
	case v.State == client.VerificationStateFailed:
		return fmt.Errorf("vdisk %s: the verification did not come to its end: %s", v.VDisk, v.Error)
	}
	return nil
}

// hitsText says what a damaged object hits.
func hitsText(d client.Damage) string {
	var hits []string
	if d.Current {
		hits = append(hits, "the vDisk as it is now")
	}
	for _, s := range d.Snapshots {
		hits = append(hits, "snapshot "+s)
	}
	switch {
	case len(hits) > 0:
		return strings.Join(hits, ", ")
	case len(d.Ranges) > 0:
		return "moments of the history only"
	}
	return "no data"
}

// verifiedText is the newest result in a few words.
func verifiedText(v *client.Verified) string {
	s := formatTime(&v.EndedAt)
	if !v.Complete {
		s += ", not to the end"
	}
	if v.BadObjects > 0 {
		return fmt.Sprintf("%s, %d objects damaged; ovgate vdisk verify --last shows them", s, v.BadObjects)
	}
	return s + ", no damage"
}
