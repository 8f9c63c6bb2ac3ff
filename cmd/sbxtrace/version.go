package main

import "runtime/debug"

// Set by `make build`.
var buildVersion string

// version is what --version prints: the release, or what Go knows of the build.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
