#!/usr/bin/env bash
# What `make demo` shows: sbxtrace attached to a running service that knows
# nothing of it. Leaves its output under build/demo.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/demo
mkdir -p "$out"
make --no-print-directory build >/dev/null

sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "tracing takes root: run it as root, or install sudo" >&2; exit 1; }
	sudo=sudo
fi
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. A service to look at: it was built as usual and knows nothing of sbxtrace"
if command -v gcc >/dev/null; then
	gcc -O2 -g -pthread -Iinternal/targets/src/include -o "$out/demo" internal/targets/src/demo/demo.c
else
	go build -o "$out/demo" ./internal/targets/src/godemo
fi
"$out/demo" >/dev/null &
demo=$!
trap 'kill $demo 2>/dev/null || true' EXIT
echo "running as pid $demo"

say "2. sbxtrace attach --pid $demo --duration 2s"
$sudo bin/sbxtrace attach --pid "$demo" --duration 2s -o "$out/calls.txt"
# The end of the live tree, and the summary.
grep -n -m1 'CALLS .*FUNCTION' "$out/calls.txt" >/dev/null || { echo "no calls were seen" >&2; exit 1; }
awk '/CALLS .*FUNCTION/ { exit } { print }' "$out/calls.txt" | tail -n 45
awk '/CALLS .*FUNCTION/ { on = 1 } on { print }' "$out/calls.txt"

say "3. The same for a program: one JSON object per call"
$sudo bin/sbxtrace attach --pid "$demo" --duration 1s --format json -o "$out/calls.json"
head -n 3 "$out/calls.json"

say "Done. The service has not been touched: pid $demo is still running."
kill -0 "$demo"
echo "call tree and summary: $out/calls.txt"
echo "JSON lines:            $out/calls.json"
