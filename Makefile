# `make help` lists the targets. Those that need more than Go say so; the
# packages they want are installed by `make deps`.

MODULE  := github.com/sbxtrace/sbxtrace
BIN     := bin/sbxtrace
PREFIX  ?= /usr/local
DESTDIR ?=

# Outside of a git checkout (a source archive) the program reports itself as a
# development build.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := $(if $(VERSION),-X main.version=$(VERSION))

CLANG      ?= clang-19
LLVM_STRIP ?= llvm-strip-19
# bpf2go reads these.
export BPF2GO_CC    := $(CLANG)
export BPF2GO_STRIP := $(LLVM_STRIP)

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

RESULTS   ?= build/results
TESTFLAGS ?=
FUZZTIME  ?= 10s
SOAKTIME  ?= 1h
BENCH     ?= .
VMTESTFLAGS ?=

TESTSUM := build/testsum

# Packages whose tests load BPF programs or trace processes: they run as root and
# one package after the other, since they watch the same machine.
INTEGRATION := grep -E '^$(MODULE)/(loader|cmd|tests|vmtests/smoke)(/|$$)'
# Test binaries are built as the user and run as root.
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo -E)
AS_ROOT := $(if $(filter 0,$(shell id -u)),,-exec "sudo -E env PATH=$(PATH)")

.DEFAULT_GOAL := build
.PHONY: help microbench build generate check-generated demo deps test test-unit test-integration bench lint gofmt vet \
	staticcheck cross vmtest docs-kernels soak fuzz clean install

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static binary bin/sbxtrace (needs Go alone)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/sbxtrace

install: build ## install the binary below DESTDIR and PREFIX
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/sbxtrace

generate: ## compile the BPF programs and generate their Go code (needs clang and libbpf's headers)
	go generate ./...

check-generated: generate ## fail when the committed BPF objects or their Go code are not what the sources give
	@git diff --exit-code --stat -- bpf || { echo 'bpf/ differs from what is committed: commit the result of make generate' >&2; exit 1; }
	@new=$$(git ls-files --others -- bpf); [ -z "$$new" ] || { printf 'not committed:\n%s\n' "$$new" >&2; exit 1; }

demo: ## trace the bundled demo program and show its call tree
	scripts/demo.sh

deps: ## install the Debian packages that tests and generation need, as far as they are missing
	scripts/install-test-deps.sh

$(TESTSUM): $(wildcard internal/testsum/*.go internal/testsum/cmd/*.go)
	go build -o $@ ./internal/testsum/cmd

test: deps $(TESTSUM) ## run all tests on this machine; those that trace processes run as root
	@rc=0; for part in test-unit test-integration; do $(MAKE) --no-print-directory $$part || rc=1; done; exit $$rc

test-unit: $(TESTSUM) ## run the tests that need no root
	@$(TESTSUM) test -group unit -results $(RESULTS) -- -timeout 10m $(TESTFLAGS) $$(go list ./... | $(INTEGRATION) -v)

test-integration: $(TESTSUM) ## run the tests that trace real processes (needs root or sudo)
	@$(TESTSUM) test -group integration -results $(RESULTS) -- -timeout 15m -count 1 -p 1 $(AS_ROOT) $(TESTFLAGS) $$(go list ./... | $(INTEGRATION))

bench: deps build ## measure sbxtrace beside bpftrace and perf; the tables go to docs/benchmarks.md
	go build -o build/bench ./internal/bench
	$(SUDO) build/bench -report docs/benchmarks.md

microbench: ## run the Go benchmarks that match BENCH
	go test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 -timeout 60m ./...

lint: gofmt vet staticcheck ## gofmt, go vet, staticcheck

gofmt:
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { printf 'not formatted:\n%s\n' "$$bad" >&2; exit 1; }

vet:
	go vet ./...

staticcheck:
	go run $(STATICCHECK) ./...

cross: ## see that everything compiles for linux/arm64, tests too
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build ./...
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go vet ./...

vmtest: deps ## boot Debian's kernels in QEMU and run the integration tests there (no root, no KVM)
	go run ./vmtests -results $(RESULTS) $(VMTESTFLAGS)

docs-kernels: ## write the results of the last test and vmtest into docs/kernels.md
	go run ./vmtests -results $(RESULTS) -docs docs/kernels.md

soak: deps $(TESTSUM) ## run the soak tests for SOAKTIME each (default one hour)
	SBXTRACE_SOAK=$(SOAKTIME) $(TESTSUM) test -group soak -results $(RESULTS) -- -timeout 0 -count 1 -p 1 $(AS_ROOT) -v -run '^TestSoak' $$(go list ./... | $(INTEGRATION))

fuzz: ## run each fuzz target for FUZZTIME (default ten seconds)
	scripts/fuzz.sh $(FUZZTIME)

clean: ## remove what was built; downloaded kernels stay in .cache
	rm -rf bin build .cache/vmtests
