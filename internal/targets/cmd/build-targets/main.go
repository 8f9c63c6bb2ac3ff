// Command build-targets builds test targets, all or the named ones, into a
// directory for machines without compilers:
//
//	go run ./internal/targets/cmd/build-targets DIR [NAME ...]
package main

import (
	"fmt"
	"os"

	"github.com/sbxtrace/sbxtrace/internal/targets"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: build-targets DIR [NAME ...]")
		os.Exit(2)
	}
	built, err := targets.Prebuild(os.Args[1], os.Args[2:]...)
	fmt.Printf("%d programs in %s\n", len(built), os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "build-targets:", err)
		os.Exit(1)
	}
}
