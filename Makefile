SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PROGRAM  := autofs-restore-hook
BINARY   := bin/$(PROGRAM)
AGENT    := bin/autofs-restore-agent
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The date of everything in a package.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat --format=%Y go.mod)

# The program that the end-to-end tests drive. HOOK=/bin/true shows them fail.
HOOK ?= $(CURDIR)/$(BINARY)
# REQUIRE=1 turns every skipped test into a failure.
export HOOK REQUIRE

NODE := $(CURDIR)/test/node/enter
# The race detector needs cgo, and so a C compiler.
RACE := $(if $(shell command -v gcc),-race)
# Only the tests that match: make test-e2e RUN='Hangs|Inspect'.
RUN ?= .

.PHONY: help build agent image demo test test-unit strace test-kernel test-kernels test-kernels-e2e test-e2e test-agent test-agent-soak test-apiserver test-cri test-kubernetes containerd-next test-chaos test-soak test-matrix containerd-task lab lab-all bench bench-tools check-budget lint check-deps check-size accept-size check-packages dist release check-release clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Without D-Bus over TCP there is no resolver of host names in the program.
build: ## Build bin/autofs-restore-hook, static
	CGO_ENABLED=0 go build -trimpath -tags godbus_no_tcp -ldflags '-s -w -X main.versionNumber=$(VERSION)' -o $(BINARY) ./cmd/$(PROGRAM)

agent: ## Build bin/autofs-restore-agent, the Kubernetes node agent
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.versionNumber=$(VERSION)' -o $(AGENT) ./cmd/autofs-restore-agent

# bin/PROGRAM.notices has the licences of all linked modules, bin/PROGRAM.cdx.json
# is the bill of materials. The licences are those of packaging/nfpm.yaml and these.
HOOK_LICENSE  := $(shell sed -n 's/^license: //p' packaging/nfpm.yaml)
AGENT_LICENSE := Apache-2.0 AND BSD-2-Clause AND BSD-3-Clause AND MIT AND MPL-2.0
bom = go run -C packaging ./bom -source .. -version $(VERSION) -license '$(2)' -notices ../$(1).notices -sbom ../$(1).cdx.json ../$(1)

# Of the packages and the image. Both were tried (docs/testing.md).
ARCHITECTURES ?= amd64 arm64

# The programs of an architecture, with what packages and image say about them, in bin/amd64.
hook-%:
	GOARCH=$* $(MAKE) build BINARY=bin/$*/$(PROGRAM)
	$(call bom,bin/$*/$(PROGRAM),$(HOOK_LICENSE))

programs-%: hook-%
	GOARCH=$* $(MAKE) agent AGENT=bin/$*/autofs-restore-agent
	$(call bom,bin/$*/autofs-restore-agent,$(AGENT_LICENSE))

image: build $(addprefix programs-,$(ARCHITECTURES)) ## Build bin/autofs-restore-agent.tar, the agent's image (an OCI archive) for amd64 and arm64
	manifests/kubernetes/image/build autofs-restore-agent:$(VERSION) $(AGENT).tar autofs-restore-agent $(addprefix bin/,$(ARCHITECTURES))

demo: build lab ## Show on a real container what the program cures (root; the first time about 2 minutes)
	@go test -C test -c -o $(CURDIR)/bin/demo.test ./demo
	@$(NODE) $(CURDIR)/bin/demo.test -test.run TestDemo

test: build ## All tests, with everything they need (root)
	@mkdir -p bin/log; failed=; \
	for suite in unit kernel e2e agent; do \
		begin=$$SECONDS; \
		$(MAKE) test-$$suite 2>&1 | tee bin/log/$$suite || failed="$$failed $$suite"; \
		echo "suite took $$((SECONDS - begin)) s" >>bin/log/$$suite; \
	done; \
	printf '\n'; \
	for suite in unit kernel e2e agent; do \
		awk -v suite=$$suite '/^ *--- PASS/ { pass++ } /^ *--- FAIL/ { fail++ } /^ *--- SKIP/ { skip++ } /^suite took/ { took = $$3 } \
			END { printf "%-7s %4d passed  %4d failed  %4d skipped  %4d s\n", suite, pass, fail, skip, took }' bin/log/$$suite; \
	done; \
	if [[ -n $$failed ]]; then echo "FAILED:$$failed (the whole output is in bin/log/)"; exit 1; fi; \
	echo "all tests passed"

test-unit: strace ## Tests of the packages
	go test $(RACE) -count=1 -v -run '$(RUN)' ./...
	go test -C test -count=1 -v -run '$(RUN)' ./matrix/... ./lab
	go test -C test/rules -count=1 -v -run '$(RUN)' .

# Two tests count system calls.
strace:
	@command -v strace >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends strace >/dev/null; } || \
		echo "strace could not be installed: tests that need it are skipped"

test-kernel: ## Tests with real autofs mounts and small masters (root)
	go test -C test -count=1 -v -exec 'unshare --mount --propagation private' -run '$(RUN)' ./kernel/...

# Debian 12, 13 and the newest kernel, of amd64 or arm64; bullseye has an older kernel
# than the program needs.
KERNELS ?= bookworm trixie sid
ARCH    ?= amd64

test-kernels: ## The same and the tests of the packages under other kernels, in QEMU; ARCH=arm64 (root)
	ARCH=$(ARCH) RUN='$(RUN)' test/vm/run unit $(KERNELS)

# Emulated, all of them would take half an hour.
KERNELS_RUN := TestHangsWithoutHook|TestSystemdNeverNotices|TestRepairedByActionScript|TestOldNumbersOccupied

test-kernels-e2e: ## Some tests with systemd containers under these kernels, in QEMU; ARCH=arm64 (root)
	GOARCH=$(ARCH) $(MAKE) build BINARY=bin/$(ARCH)/$(PROGRAM)
	ARCH=$(ARCH) HOOK='$(patsubst $(CURDIR)/$(BINARY),$(CURDIR)/bin/$(ARCH)/$(PROGRAM),$(HOOK))' \
		RUN='$(if $(filter .,$(RUN)),$(KERNELS_RUN),$(RUN))' test/vm/run e2e $(KERNELS)

test-e2e: lab-all containerd-task ## Tests with systemd containers, CRIU and container runtimes (root)
	$(if $(filter $(CURDIR)/$(BINARY),$(HOOK)),$(MAKE) build dist ARCHITECTURES="$$(go env GOARCH)")
	go test -C test -count=1 -v -timeout 40m -parallel 4 -exec $(NODE) -run '$(RUN)' ./e2e/...

test-soak: lab build ## 300 restores with alternating cures, 15 minutes of random kills (root)
	SOAK_CYCLES=$(or $(CYCLES),300) SOAK_SECONDS=$(or $(SECONDS_OF_KILLS),900) \
		go test -C test -count=1 -v -timeout 2h -exec $(NODE) -run 'TestSoak' ./e2e/...

test-chaos: lab-all build ## Kill the program at each call that changes something, and at each ptrace call (hours, root)
	CRASH_WALK=$(or $(WALK),1-) go test -C test -count=1 -v -timeout 4h -exec $(NODE) -run 'TestCrash' ./e2e/...
	REEXEC_WALK=$(or $(WALK),1-) go test -C test -count=1 -v -timeout 2h -exec $(NODE) -run 'TestReexecutedKilled' ./e2e/...

test-agent: image lab ## Tests of the Kubernetes node agent with containerd (root)
	go test -C test -count=1 -v -timeout 10m -exec $(NODE) -run '$(RUN)' ./agent/...

# The engines of test-cri: containerd is that of Debian sid, containerd-next that of
# test/engines.
ENGINES ?= containerd
# The document that gets the table of what ran; empty: it is printed.
TABLE ?=

test-cri: build agent ## Tests of restores through containerd's CRI, on Debian sid (root)
	@test/node/build node-sid >/dev/null
	$(if $(filter containerd-next,$(ENGINES)),@$(MAKE) containerd-next)
	@rm -rf bin/cri; mkdir -p bin/cri; failed=; n=0; \
	for engine in $(ENGINES); do \
		case $$engine in \
		containerd) path= ;; \
		containerd-next) path=$(CURDIR)/bin/engines ;; \
		*) echo "no engine $$engine"; exit 2 ;; \
		esac; \
		NODE_SUITE=sid ENGINE_PATH=$$path MATRIX=$(CURDIR)/bin/cri/$$((++n))-$$engine.json \
			go test -C test -count=1 -v -timeout 20m -exec $(NODE) -run '$(RUN)' ./cri/... || failed="$$failed $$engine"; \
	done; \
	if compgen -G 'bin/cri/*.json' >/dev/null; then \
		go run -C test ./matrix/render $(CURDIR)/bin/cri $(if $(TABLE),$(abspath $(TABLE))); \
	fi; \
	if [[ -n $$failed ]]; then echo "FAILED:$$failed"; exit 1; fi

# A module of its own: its dependencies are many. About 3 minutes the first time.
containerd-next: ## Build bin/engines, a containerd newer than that of Debian sid
	@mkdir -p bin/engines
	@CGO_ENABLED=0 go build -C test/engines -trimpath -ldflags '-s -w' -tags 'no_btrfs no_devmapper no_zfs' -o $(CURDIR)/bin/engines/ tool

# The versions are those of test/apiserver/go.mod.
kubernetes = CGO_ENABLED=0 go build -C test/apiserver -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/apiserver/ \
	go.etcd.io/etcd/server/v3 $(addprefix k8s.io/kubernetes/cmd/kube,-apiserver -controller-manager ctl $(1))

test-apiserver: ## Apply the manifests to a real API server, built from its module (the first time 11 minutes of processor time)
	@$(call kubernetes,)
	go test -C test/apiserver -count=1 -v -run '$(RUN)' .

test-kubernetes: build agent ## A whole Kubernetes of one node: the agent installed, a pod restored, on Debian sid (root)
	@test/node/build node-sid >/dev/null
	@$(call kubernetes,-scheduler let)
	@go test -C test -c -o $(CURDIR)/bin/cri.test ./cri
	KUBERNETES=$(CURDIR)/bin/apiserver NODE_SUITE=sid $(NODE) unshare --net --uts bin/cri.test -test.v -test.run '^TestKubernetes$$'

test-agent-soak: image lab ## 200 restores in a row through containerd (root, 4 minutes)
	SOAK=$${SOAK:-200} go test -C test -count=1 -v -timeout 20m -exec $(NODE) -run '^TestSoak$$' ./agent/...

# Debian 13 first: the rows stand in the order of the files' names.
test-matrix: build containerd-task ## Every runtime, on Debian 13 and sid; writes docs/tested-with.md (root, 20 minutes)
	@test/node/build trixie sid node-sid >/dev/null
	@rm -rf bin/matrix; mkdir -p bin/matrix; failed=; \
	for suite in trixie sid; do \
		NODE_SUITE=$$suite MATRIX=$(CURDIR)/bin/matrix/$$([[ $$suite == trixie ]] && echo 1 || echo 2)-$$suite.json \
			go test -C test -count=1 -v -timeout 20m -exec $(NODE) -run '^Test(Runtimes|Variants)$$' ./e2e/... || failed="$$failed $$suite"; \
	done; \
	go run -C test ./matrix/render $(CURDIR)/bin/matrix $(CURDIR)/docs/tested-with.md; \
	if [[ -n $$failed ]]; then echo "FAILED:$$failed"; exit 1; fi

# The laboratory's way to containerd. Not part of what gets installed.
containerd-task:
	@CGO_ENABLED=0 go build -C test -trimpath -o $(CURDIR)/bin/containerd-task ./containerd-task

lab: ## Build the laboratory's Debian trees, once (root)
	@test/node/build >/dev/null

lab-all: ## The same with containers of other versions of systemd
	@test/node/build trixie sid >/dev/null

# Only the benchmarks that match, in small letters: make bench BENCH=noop.
BENCH ?= .

bench: build lab bench-tools ## Measure the program in the laboratory (root, 10 minutes)
	go test -C test -run '^$$' -bench '(?i)$(BENCH)' -benchtime 1x -timeout 20m -exec $(NODE) ./bench/...

# What the benchmarks compare with: an empty Go program, and system calls alone
# in C, where there is a compiler.
bench-tools:
	@CGO_ENABLED=0 go build -C test -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/bench-empty ./bench/empty
	@if command -v gcc >/dev/null; then gcc -O2 -Wall -static -o bin/bench-lean test/bench/lean/lean.c; \
	else echo "gcc is not installed: no comparison with C"; fi

check-budget: build lab check-size check-deps ## System calls of a call without work, and the size, stay within their budgets (root)
	go test -count=1 -run '^TestBudget$$' -v ./cmd/$(PROGRAM)
	go test -C test -count=1 -run '^TestBudget' -v -exec $(NODE) ./bench/...

lint: ## gofmt, go vet, and golangci-lint where it is installed
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [[ -n $$unformatted ]]; then echo "gofmt -w is needed for:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -C test ./...
	go vet -C test/rules ./...
	go vet -C test/apiserver ./...
	go vet -C packaging ./...
	GOARCH=arm64 CGO_ENABLED=0 go vet ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run --allow-parallel-runners ./... && for module in test test/rules test/apiserver packaging; do (cd $$module && golangci-lint run --allow-parallel-runners --config $(CURDIR)/.golangci.yml ./...); done; \
	else echo "golangci-lint is not installed: only gofmt and go vet ran"; fi
	@if command -v shellcheck >/dev/null; then shellcheck test/node/build test/node/enter test/cri/testdata/veth test/vm/build test/vm/run test/vm/guest manifests/kubernetes/image/build .ci/run packaging/build packaging/version packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm packaging/rpm/{posttrans,preun,postun,rpmlint}; \
	else echo "shellcheck is not installed: shell scripts were not checked"; fi

check-deps: build ## The light binary stays light: no containerd, grpc or Kubernetes, and static
	@heavy=$$(go list -deps ./cmd/$(PROGRAM) | grep -E '^(github\.com/containerd/|google\.golang\.org/grpc|k8s\.io/)' || true); \
	if [[ -n $$heavy ]]; then echo "$(BINARY) must not depend on:"; echo "$$heavy"; exit 1; fi
	@if [[ $$(LC_ALL=C ldd $(BINARY) 2>&1 || true) != *'not a dynamic executable'* ]]; then \
		echo "$(BINARY) is not static:"; ldd $(BINARY); exit 1; fi
	@echo "$(BINARY): static, no containerd, grpc or Kubernetes packages"

# The size of the last release, or what was accepted since, is in packaging/size.
MAX_SIZE   := 6291456
MAX_GROWTH := 131072

check-size: build ## The light binary is at most 6 MiB, and has not grown by 128 KiB
	@size=$$(stat --format=%s $(BINARY)); recorded=$$(<packaging/size); \
	echo "$(BINARY): $$size bytes, recorded $$recorded, at most $(MAX_SIZE)"; \
	if ((size > $(MAX_SIZE))); then echo "$(BINARY) is larger than $(MAX_SIZE) bytes"; exit 1; fi; \
	if ((size > recorded + $(MAX_GROWTH))); then \
		echo "$(BINARY) has grown by $$((size - recorded)) bytes, more than $(MAX_GROWTH);"; \
		echo "if that is worth it: make accept-size, and commit packaging/size with the reason"; exit 1; fi

accept-size: build ## Record the size of the light binary (at each release, and where growth is accepted)
	stat --format=%s $(BINARY) >packaging/size

dist: $(addprefix hook-,$(ARCHITECTURES)) ## Packages in bin/dist: tar.gz, deb and rpm for amd64 and arm64
	packaging/build $(VERSION) bin/dist $(ARCHITECTURES)

release: ## Everything that a release has, with checksums, in bin/dist
	rm -rf bin/dist
	$(MAKE) dist image
	version=$$(packaging/version $(VERSION) $$(git rev-list --count HEAD)); cd bin; \
	for arch in $(ARCHITECTURES); do for program in $(PROGRAM) autofs-restore-agent; do \
		cp $$arch/$$program.cdx.json dist/$$program-$$version-linux-$$arch.cdx.json; done; done; \
	cp autofs-restore-agent.tar dist/autofs-restore-agent-$$version-linux.oci.tar; \
	cd dist; sha256sum * >SHA256SUMS; cat SHA256SUMS

check-release: release ## Build the release once more elsewhere, and compare the bytes (what is not committed is not in it)
	clone=$$(mktemp -d); trap 'rm -rf "$$clone"' EXIT; \
	git clone --quiet . "$$clone/elsewhere"; \
	(umask 077; TZ=Asia/Tokyo $(MAKE) -C "$$clone/elsewhere" release >/dev/null); \
	diff -r bin/dist "$$clone/elsewhere/bin/dist"; echo "the same bytes"

check-packages: dist ## lintian and rpmlint are content with the packages, nothing is missing in them (root)
	lintian --fail-on error,warning --tag-display-limit 0 bin/dist/*.deb
	packaging/rpm/rpmlint bin/dist/*.rpm
	go test -C packaging -count=1 -v ./...

clean: ## Remove bin/ (the laboratory's trees stay in their cache)
	rm -rf bin
