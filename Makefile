# ovgate: commands for people and CI. `make` alone explains them.

GO ?= go

.DEFAULT_GOAL := help
.PHONY: help run test drills soak bench build deb lint generate ui setup vulncheck

help: ## This text
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Build and start a node on ./data with a published vDisk, in the foreground
	@scripts/run

build: ## Build bin/ovgate
	$(GO) build -o bin/ovgate ./gateway/cmd/ovgate

deb: ## Build the Debian package into bin
	@scripts/package deb

setup: ## Install the Debian packages that tests, drills and benches need
	scripts/setup.sh

test: ## Run every test, with the time per area at the end (installs what is missing)
	scripts/test

lint: ## gofmt, go vet, staticcheck, and whether generated code is current
	scripts/test lint

generate: ## Rewrite what is generated from gateway/api/openapi.yaml
	$(GO) generate ./...

ui: ## Rebuild ui/dist from ui/src
	$(GO) run ./ui/build/uibuild

drills: ## Run every fault drill once against the real binary
	scripts/drills

soak: ## Run the drills, random model tests and fuzz targets until something breaks or Ctrl-C
	scripts/soak

bench: ## Measure side by side with peers and write bench.json
	$(GO) run ./scripts/bench

vulncheck: ## Look for known vulnerabilities in what is linked (needs network)
	$(GO) tool govulncheck ./...
