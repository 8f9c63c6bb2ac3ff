package main

import "runtime/debug"

// Set by `make build`.
var version string

// versionString is what --version prints: the release, or what Go knows of the build.
func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
