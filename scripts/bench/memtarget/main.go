// Command memtarget is the iSCSI target by itself, over devices in memory: what
// scripts/bench measures beside tgt.
//
//	memtarget [-listen ADDR] [-size BYTES] [-file PATH] [-delay D] [-profile FILE]
//	          [-forward ADDR | -owner ADDR [-clear]]
//
// With -forward it also executes commands that others forward, at that address; with
// -owner it has no devices, and forwards to the one at that address, with TLS. LUN 0 is plain memory, LUN 1 the file if one is given, LUN 2 memory that takes
// D for every command. It prints portal, iqn and pid as key=value lines, and
// serves until SIGINT or SIGTERM. Every initiator is admitted: it is for
// loopback only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/scripts/bench/benchdisk"
)

// iqn is the name of the target.
const iqn = "iqn.2026-01.io.ovgate.bench:memory"

type options struct {
	listen, file, profile string
	forward, owner        string
	clear                 bool
	size                  int64
	delay                 time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "loopback address and port")
	flag.Int64Var(&o.size, "size", 256<<20, "size of the devices in memory, in bytes")
	flag.StringVar(&o.file, "file", "", "file of LUN 1")
	flag.DurationVar(&o.delay, "delay", time.Millisecond, "time that LUN 2 takes")
	flag.BoolVar(&o.clear, "clear", false, "forward in the clear once both ends have shaken hands")
	flag.StringVar(&o.forward, "forward", "", "loopback address and port for commands of others")
	flag.StringVar(&o.owner, "owner", "", "address of the memtarget that has the devices")
	flag.StringVar(&o.profile, "profile", "", "write a CPU profile here")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "memtarget:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	spec, err := target(o)
	if err != nil {
		return err
	}
	var config iscsi.Config
	if o.owner != "" {
		f := forwarder(o.owner, o.clear)
		defer f.Close()
		config.Forward = f
	}
	srv := iscsi.NewServer(config)
	if err := srv.AddTarget(spec); err != nil {
		return err
	}
	if o.forward != "" {
		address, end, err := serveOthers(o.forward, srv)
		if err != nil {
			return err
		}
		defer end()
		fmt.Printf("forward=%s\n", address)
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	fmt.Printf("portal=%s\niqn=%s\npid=%d\n", l.Addr(), iqn, os.Getpid())
	<-ctx.Done()
	err = srv.Shutdown(ctx) // ended already: sessions are cut off
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if e := <-served; !errors.Is(e, iscsi.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

func target(o options) (iscsi.TargetSpec, error) {
	spec := iscsi.TargetSpec{Name: iqn, Groups: []iscsi.Group{{Name: "all", Any: true}}}
	if o.owner != "" {
		spec.LUNs = []iscsi.LUNSpec{{Disk: iscsi.NewRemoteDisk(o.size, 4096), Serial: "bench0", NAA: [16]byte{0x60}}}
		return spec, nil
	}
	memory := benchdisk.NewMemory(o.size)
	disks := []iscsi.Disk{0: memory, 2: &benchdisk.Slow{Disk: memory, Delay: o.delay}}
	if o.file != "" {
		f, err := benchdisk.OpenFile(o.file)
		if err != nil {
			return spec, err
		}
		disks[1] = f
	}
	for i, d := range disks {
		if d != nil {
			spec.LUNs = append(spec.LUNs, iscsi.LUNSpec{Number: uint16(i), Disk: d, Serial: fmt.Sprint("bench", i), NAA: [16]byte{0x60, 15: byte(i)}})
		}
	}
	return spec, nil
}
