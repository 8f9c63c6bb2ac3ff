package main

import "github.com/spf13/cobra"

func functionsCommand() *cobra.Command { return &cobra.Command{Use: "functions"} }

func doctorCommand() *cobra.Command { return &cobra.Command{Use: "doctor"} }
