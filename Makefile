# SPDX-License-Identifier: Apache-2.0

VERSION := 0.1.0
BUILD   := build
# The first use installs what is missing (Debian packages, a Go that is new enough).
GO       = $(eval GO := $$(shell .ci/setup))$(GO)
export CGO_ENABLED := 0
DEB     := $(BUILD)/upsplice_$(VERSION)_$(shell dpkg --print-architecture).deb

.PHONY: build
build: ## build the programs
	$(GO) build -trimpath -ldflags "-s -w -X github.com/upsplice/upsplice/hook/cli.Version=$(VERSION)" -o $(BUILD)/ ./hook/upsplice
	$(GO) build -trimpath -ldflags "-s -w" -o $(BUILD)/backends/ ./plugins/debian

.PHONY: deb
deb: build ## make the Debian package
	packaging/deb/build $(VERSION) $(BUILD) $(BUILD)

.PHONY: demo
demo: deb ## boot a real older kernel, upgrade it with apt, see the update live
	$(GO) run ./hook/demo -package $(DEB)

.PHONY: test
test: lint deb ## all tests, boots included
	UPSPLICE_DEB=$(abspath $(DEB)) $(GO) test -timeout 22m ./...

.PHONY: test-all
test-all: export UPSPLICE_MACHINES := all
test-all: test race fuzz loop property whole corpus demo ## test, the race detector, every fuzz target, the long loop, every built-in unit, a whole update, the corpus, the demonstration

.PHONY: race
race: ## the tests of what runs concurrently, under the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 30m $$($(GO) list ./distro/... ./hook/... ./plugins/... | grep -v /e2e)

.PHONY: corpus
corpus: ## make a splice of each of many real changes, try it in a booted kernel, print a table; CHANGES=pattern for some
	$(GO) build -o $(BUILD)/corpus ./hook/corpus/run
	$(BUILD)/corpus -only '$(CHANGES)'

ROUNDS ?= 200
.PHONY: loop
loop: ## apply, use and undo a real splice ROUNDS times under load in a virtual machine
	ROUNDS=$(ROUNDS) $(GO) test -count 1 -timeout 3h -run '^TestLoop$$' -v ./hook/e2e

SCALE ?= 1000
.PHONY: scale
scale: ## time how a splice of SCALE functions of a real kernel is loaded, replaced and undone, under load
	UPSPLICE_SCALE=$(SCALE) $(GO) test -tags scale -timeout 5h -count 1 -v -run '^TestScale$$' ./splice/livepatch

PROPERTY ?= all
.PHONY: property
property: ## match every built-in unit of a real kernel with the shipped image and itself
	UPSPLICE_PROPERTY=$(PROPERTY) $(GO) test -timeout 12h -count 1 -v -run '^TestProperty$$' ./splice/match

.PHONY: whole
whole: ## cut, group and merge a whole update of the distribution
	$(GO) test -tags update -timeout 1h -count 1 -v -run '^(TestUpdate|TestRealUpdate)$$' ./splice/freeze ./splice/groups

.PHONY: lint
lint: ## formatting, vet, staticcheck
	@out=$$($$($(GO) env GOROOT)/bin/gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not formatted: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

.PHONY: bench
bench: ## time from two source archives to a splice, cold and prepared; memory; cache size
	$(GO) run ./hook/bench

FUZZTIME ?= 20s
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg 2>/dev/null | grep ^Fuzz); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$pkg || exit 1; \
		done; \
	done

.PHONY: generate
generate: ## regenerate the code of the backend protocol
	$(GO) generate ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BUILD)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
