# Sallyport. `make help` lists the targets.
GO        ?= go
BIN       := bin
# What the programs and their tests run, and the packages of Debian that have it.
PACKAGES  := iptables ipset nftables iproute2 conntrack iputils-ping procps $(if $(RACE),gcc libc6-dev)
COMMANDS  := iptables-nft iptables-legacy ipset nft ip conntrack ping sysctl $(if $(RACE),gcc)
# What a cluster of the tests runs besides.
PACKAGES_E2E := prometheus chromium fonts-dejavu-core containerd runc containernetworking-plugins debootstrap util-linux
COMMANDS_E2E := prometheus promtool chromium containerd runc /usr/lib/cni/bridge debootstrap nsenter
LINT      := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
CONTROLLER_GEN := sigs.k8s.io/controller-tools/cmd/controller-gen@v0.23.0
VULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.8.0
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
FUZZTIME  ?= 10s
# Which scenarios of e2e/k8s `make e2e` runs, as a pattern of go test.
SCENARIOS ?= .
# RACE=1 runs the tests with the race detector (needs gcc). What go vet finds, `make vet` does.
TESTFLAGS := -vet=off $(if $(RACE),-race)
# All targets compile alike, so that what one has compiled is there for the next.
export GOFLAGS ?= -trimpath
export CGO_ENABLED := $(if $(RACE),1,0)

# Packages whose tests need no lab.
UNITS     = $$($(GO) list ./... | grep -Ev '/e2e|/charts')

.PHONY: help build test e2e helm cluster demo lab chaos bench bench-peers lint vet fuzz vuln docs generate check-generated deps deps-e2e root clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the programs, static, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-X main.release=$(VERSION)" -o $(BIN)/ ./cmd/... ./e2e/...

test: PACKAGES += chromium fonts-dejavu-core prometheus
test: COMMANDS += chromium prometheus promtool
# Packets on their way take no compiler beside them: what is tested at the same time is compiled
# first, and the labs come last, one package at a time, six labs where nothing is timed: they
# mostly wait. Go does not see that the binary they run changed.
test: root deps build ## Run all tests (root: they make network namespaces)
	$(GO) test $(TESTFLAGS) -c -o /dev/null $(UNITS)
	$(GO) test $(TESTFLAGS) -timeout 15m $(UNITS)
	SALLYPORT_BIN=$(CURDIR)/$(BIN)/sallyport $(GO) test $(TESTFLAGS) -count 1 -p 1 -parallel 6 -timeout 30m $$($(GO) list ./e2e/... | grep -Ev '/e2e/(cluster|kube|k8s)$$')

e2e: root deps-e2e build ## Run all tests that need Kubernetes (builds it first, once: 6 minutes on 2 cores)
	@programs=$$($(BIN)/cluster bin) && SALLYPORT_CLUSTER_BIN=$$programs HELM=$$programs/helm SALLYPORT_BIN=$(CURDIR)/$(BIN)/sallyport \
	  sh -c "$(GO) test $(TESTFLAGS) -count 1 -p 1 -timeout 20m ./charts/... ./e2e/cluster/... ./e2e/kube/... && \
	  $(GO) test $(TESTFLAGS) -count 1 -parallel 1 -timeout 40m -run '$(SCENARIOS)' ./e2e/k8s"

helm: build ## Build Helm, with the other programs of the test cluster, and print where it is
	@echo $$($(BIN)/cluster bin)/helm

cluster: root deps-e2e build ## Leave a Kubernetes cluster running to play with, until Ctrl-C
	$(BIN)/cluster up --binary $(CURDIR)/$(BIN)/sallyport

demo: root deps build ## Show a failover with real packets (KEEP=1 leaves the lab running)
	$(BIN)/demo $(if $(KEEP),--keep)

lab: root deps build ## Leave a lab running to play with, until Ctrl-C
	$(BIN)/lab up

chaos: root deps build ## Break a lab at random and watch what holds (DURATION=5m SEED= TIMING=default)
	$(BIN)/chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION),--duration $(DURATION)) $(if $(TIMING),--timing $(TIMING))

bench: root deps build ## Measure and write docs/benchmarks.md (takes long)
	@command -v keepalived >/dev/null 2>&1 || { command -v apt-get >/dev/null 2>&1 && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends keepalived >/dev/null; } || \
	  echo "keepalived is not to be had: it is left out of the comparison"
	$(BIN)/bench

bench-peers: root deps build ## Measure every fault beside keepalived with conntrackd (TRIALS=15)
	@missing=; for c in keepalived conntrackd; do command -v $$c >/dev/null 2>&1 || missing="$$missing $$c"; done; \
	[ -z "$$missing" ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null || \
	  echo "not to be had, and left out of the comparison:$$missing"
	$(BIN)/bench peers $(if $(TRIALS),--trials $(TRIALS))

deps: ## Install what the tests and the demo need, or name it
	@missing=; for c in $(COMMANDS); do command -v $$c >/dev/null 2>&1 || missing="$$missing $$c"; done; \
	if [ -n "$$missing" ]; then \
	  if command -v apt-get >/dev/null 2>&1; then \
	    echo "installing $(PACKAGES) (missing:$$missing)"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null; \
	  else echo "missing commands:$$missing. Install the packages $(PACKAGES)." >&2; exit 1; fi; fi

deps-e2e:
	@$(MAKE) --no-print-directory deps PACKAGES="$(PACKAGES) $(PACKAGES_E2E)" COMMANDS="$(COMMANDS) $(COMMANDS_E2E)"

root:
	@[ "$$(id -u)" = 0 ] || { echo "needs root (network namespaces): run it as root, for example: sudo make $(MAKECMDGOALS)" >&2; exit 1; }

lint: ## Run golangci-lint, which also keeps the pure packages pure
	$(GO) run $(LINT) run --allow-parallel-runners --max-issues-per-linter 0 --max-same-issues 0 ./...

vet: ## Run go vet and gofmt
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not gofmt-ed: $$out" >&2; exit 1; }
	$(GO) vet ./...

# Without a failing input, a passed deadline is Go's own (go.dev/issue/75804, until 1.27).
fuzz: ## Fuzz every parser for FUZZTIME each
	@grep -rHo --include=*_test.go '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file target; do \
	  dir=$${file%/*} target=$${target#func }; echo "fuzz $$dir $$target"; \
	  out=$$($(GO) test -vet=off -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$dir 2>&1 </dev/null); status=$$?; \
	  echo "$$out" | tail -n 20; case "$$status $$out" in \
	    0\ *) ;; *"Failing input"*) exit 1;; *"context deadline exceeded"*) ;; *) exit 1;; esac; done

vuln: ## Look for known vulnerabilities, where the database can be reached
	@out=$$($(GO) run $(VULNCHECK) ./... 2>&1); status=$$?; echo "$$out"; \
	case "$$status $$out" in 0\ *|*"exit status 3"*) exit $$status;; *"fetching vulnerabilities"*) \
	  echo "vuln: the vulnerability database cannot be reached from here, nothing was checked"; exit 0;; esac; exit $$status

docs: ## Write the flags of the commands into docs/commands.md, and examples into docs/audit.md
	$(GO) test -count 1 -run 'TestCommandsPage|TestAuditPage' ./cmd/sallyport -update

generate: ## Regenerate deepcopy methods, the CRD and the chart's README
	$(GO) run $(CONTROLLER_GEN) object crd paths=./api/... output:crd:dir=charts/sallyport/files/crds
	$(GO) test -count 1 -run TestTheReadmeHasEveryValue ./charts -update

check-generated: generate
	git diff --exit-code -- api charts

clean: ## Remove what was built
	rm -rf $(BIN)
