#!/usr/bin/env bash
# Runs every fuzz target of the repository for the given time, 10s by default,
# and fails when one of them finds something. What it found is left as a file in
# the package's testdata/fuzz: commit it with the fix.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
time=${1:-10s}

failed=()
found=0
while IFS=: read -r file target; do
	found=$((found + 1))
	echo "== ./$(dirname "$file") $target"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 100x "./$(dirname "$file")" || failed+=("$file: $target")
done < <(git ls-files --cached --others --exclude-standard '*_test.go' |
	xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]+' | sed 's/:func /:/' | sort -u)

echo "$((found - ${#failed[@]})) fuzz targets held for $time, ${#failed[@]} failed"
if [ "${#failed[@]}" -gt 0 ]; then
	printf 'failed: %s\n' "${failed[@]}"
fi
[ "$found" -gt 0 ] && [ "${#failed[@]}" -eq 0 ]
