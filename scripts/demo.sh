#!/usr/bin/env bash
# Builds sbxtrace and a small service, and traces the service while it runs: the
# calls on the screen, then as JSON lines into a file, then one more run from its
# first call. Needs Go; a C compiler makes it a C service, otherwise it is the
# same one in Go. What it starts it also ends.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=build/demo

fail() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}
heading() { printf '\n── %s\n\n' "$*"; }
# shown prints a command as one would type it, and runs it.
shown() {
	local word
	printf '$'
	for word in "$@"; do
		case $word in
		*[!A-Za-z0-9_./=,:%+-]*) printf " '%s'" "$word" ;;
		*) printf ' %s' "$word" ;;
		esac
	done
	printf '\n'
	"$@"
}

[ "$(uname -s)" = Linux ] || fail "sbxtrace traces Linux processes, this is $(uname -s)"
command -v go >/dev/null || fail "go is not on the PATH: install the version named in go.mod, or a newer one"
go list -m >/dev/null 2>&1 || fail "$(go version) cannot read go.mod: install Go $(awk '$1 == "go" { print $2 }' go.mod) or newer (go.dev/dl)"

root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || fail "tracing takes root, and there is no sudo here: run make demo as root"
	root=(sudo)
fi

heading "building sbxtrace and a service to look at, in $dir"
mkdir -p "$dir"
make --no-print-directory build
if command -v gcc >/dev/null; then
	# As a debug build: every function begins by saving the frame pointer,
	# where a probe is cheapest.
	shown gcc -g -pthread -I internal/targets/src/include -o "$dir/demo" internal/targets/src/demo/demo.c
	only=(--exclude 'truth_*')
else
	echo "no gcc on the PATH: the service is the one written in Go"
	CGO_ENABLED=0 shown go build -o "$dir/demo" ./internal/targets/src/godemo
	only=(--package main)
fi
if [ "${#root[@]}" -gt 0 ]; then
	echo "tracing takes root: sudo may ask for your password"
	sudo true || fail "tracing takes root"
fi

service=
cleanup() {
	if [ -n "$service" ]; then
		kill "$service" 2>/dev/null || true
		wait "$service" 2>/dev/null || true
	fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Nobody has to wait for a request in the terminal, and a screen or two shows all.
"$dir/demo" --pause 250000 >"$dir/service.log" &
service=$!
for _ in $(seq 100); do
	[ "$(readlink "/proc/$service/exe" || true)" != "$PWD/$dir/demo" ] || break
	sleep 0.05
done
[ "$(readlink "/proc/$service/exe" || true)" = "$PWD/$dir/demo" ] || fail "the service did not start, see $dir/service.log"

heading "the calls of a live process, as they happen"
shown "${root[@]}" bin/sbxtrace attach --pid "$service" --duration 2s

heading "the same as JSON lines, for programs"
shown "${root[@]}" bin/sbxtrace attach --pid "$service" --duration 2s --format json -o "$dir/calls.json"
[ -s "$dir/calls.json" ] || fail "$dir/calls.json is empty"
printf '%s lines, the first call among them:\n' "$(wc -l <"$dir/calls.json")"
grep -m 1 '"type":"call"' "$dir/calls.json"

heading "a program from its first call, the upper levels of its tree only"
shown "${root[@]}" bin/sbxtrace run --depth 3 "${only[@]}" -- "$dir/demo" --requests 2

heading "that was the demo"
cat <<END
  bin/sbxtrace            the program, one static file
  $dir/demo         the service that was traced
  $dir/calls.json   two seconds of its calls, explained in docs/json.md

Next: start it again and look around, or trace a program of yours.

  $dir/demo &
  sudo bin/sbxtrace attach --name demo --min-duration 2ms
  bin/sbxtrace attach --help
END
