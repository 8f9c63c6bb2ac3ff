#!/usr/bin/env bash
# Installs what tests, benchmarks and `make generate` need beyond Go: only the
# Debian packages that are missing, without questions, and without starting the
# services among them. Calls apt not at all when nothing is missing.
set -euo pipefail

packages=(
	# building
	make git gcc g++ libc6-dev binutils clang-19 llvm-19 libbpf-dev bpftool musl-tools systemtap-sdt-dev
	# what sbxtrace is compared with, and looked at with
	bpftrace linux-perf gdb
	# test machines
	qemu-system-x86 busybox-static cpio
	# targets
	redis-server redis-tools nginx-light postgresql erlang-base elixir rabbitmq-server python3 nodejs
	# used by tests
	xz-utils zstd procps iproute2 util-linux tmux jq chromium
)

if ! command -v go >/dev/null; then
	echo "go is not on the PATH: install the version named in go.mod, or a newer one" >&2
	exit 1
fi
if ! command -v rustc >/dev/null; then
	packages+=(rustc cargo)
fi

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
	for p in "${packages[@]}"; do
		installed "$p" || missing+=("$p")
	done
else
	echo "no apt on this machine: see to it that it has the equivalents of" >&2
	echo "  ${packages[*]}" >&2
	exit 0
fi
if [ "${#missing[@]}" -eq 0 ]; then
	exit 0
fi

root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "missing packages, and neither root nor sudo to install them: ${missing[*]}" >&2
		exit 1
	fi
	root=(sudo)
	[ "${CI:-}" != true ] || root=(sudo -n)
fi

# Packages ask this program whether they may start their service: 101 means no.
# It is there during the installation only.
policy=/usr/sbin/policy-rc.d
saved=
placed=
restore() {
	if [ -n "$placed" ]; then
		"${root[@]}" rm -f "$policy"
	fi
	if [ -n "$saved" ]; then
		"${root[@]}" mv "$saved" "$policy"
	fi
	placed='' saved=''
}
trap restore EXIT
trap 'exit 130' INT TERM
if [ -e "$policy" ] || [ -L "$policy" ]; then
	saved=$policy.before-sbxtrace
	"${root[@]}" mv "$policy" "$saved"
fi
placed=1
printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
"${root[@]}" chmod 755 "$policy"

echo "installing ${missing[*]}"
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0)
"${apt[@]}" update
"${apt[@]}" install --no-install-recommends "${missing[@]}" </dev/null
