// Command uibuild writes ui/dist from ui/src and ui/third_party. Run it from the repository's root:
//
//	go run ./ui/build/uibuild          once (make ui)
//	go run ./ui/build/uibuild -watch   again after each change, until interrupted
//
// It exits with 1 and esbuild's messages (file:line:column) when the source does not bundle; dist is
// then left as it was.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/openvstorage/ovgate/ui/build"
)

func main() {
	watch := flag.Bool("watch", false, "build again after each change")
	flag.Parse()
	if err := run(*watch); err != nil {
		fmt.Fprintln(os.Stderr, "uibuild:", err)
		os.Exit(1)
	}
}

func run(watch bool) error {
	root, err := filepath.Abs("ui")
	if err != nil {
		return err
	}
	files, err := build.Bundle(root)
	if err != nil {
		return err
	}
	if err := build.Write(root, files); err != nil {
		return err
	}
	if !watch {
		return nil
	}
	return rebuildOnChange(root)
}

func rebuildOnChange(root string) error {
	options := build.Options(root)
	options.Write, options.LogLevel = true, api.LogLevelInfo
	ctx, fault := api.Context(options)
	if fault != nil {
		return fault
	}
	defer ctx.Dispose()
	if err := ctx.Watch(api.WatchOptions{}); err != nil {
		return err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	<-interrupted
	return nil
}
