package main

import (
	"github.com/spf13/cobra"

	"github.com/sbxtrace/sbxtrace/loader"
)

// guardName is the command that `run` starts for itself.
const guardName = "guard"

func guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    guardName,
		Short:  "Let go what a killed `run` has stopped",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return loader.Guard() },
	}
}
