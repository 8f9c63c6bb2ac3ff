//go:build withcgo

package main

import "example.com/fix.ture/app/cc"

func init() { cc.Triple(3) }
