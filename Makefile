# Everything here runs on a bare Debian 12 with a Rust toolchain, as root or not. PostgreSQL is fetched, not installed.

CARGO ?= cargo
ARGS ?=

.PHONY: help demo test soak bench lint deb check clean
.DEFAULT_GOAL := help

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## PostgreSQL, a made-up HR department, the sync and a simulated platform in this terminal (ARGS="--for 1m --seed 7")
	@tests/postgres/fetch 18
	@echo "demo: building (not optimised; the first time takes a minute or two)"
	@$(CARGO) build --locked --quiet
	@$(CARGO) run --locked --quiet -- demo $(ARGS)

test: ## All tests, on PostgreSQL 15 to 18 (ARGS="name" runs the ones so named)
	@tests/run $(ARGS)

soak: ## Long runs: seeds of the simulation, an outage, first syncs, a comparison of everyone (see tests/soak for SEEDS=, SEED=, ...)
	@tests/soak

bench: ## Every benchmark beside pg_recvlogical, with targets and verdicts; writes the README's table (ARGS="burst latency": those)
	@tests/postgres/fetch 18
	@$(CARGO) bench --locked --bench micro
	@$(CARGO) bench --locked --bench pipeline -- $(or $(ARGS),--write)

lint: ## Formatting, clippy, documentation, SQL, licences, spelling
	@tests/lint/run

deb: ## A Debian package in target/packaging
	@packaging/build

check: ## What continuous integration runs: test, lint, dashboards and alerts, the package
	@.ci/run

clean: ## Stop the test servers and remove what was built
	@tests/postgres/stop
	@$(CARGO) clean
