# A thin front: Meson builds, scripts/ set up. `make` alone prints the goals.
BUILD ?= build
PYTHON ?= /usr/bin/python3
# What the control planes of the black-box tests keep their state in: the whole suite, once for each.
DATABASES ?= sqlite postgresql
.DEFAULT_GOAL := help
.PHONY: help deps build assets images bootstrap run test test-previous check test-asan test-tsan test-workflows bench fuzz chaos lint docs man format clean
# Two makes in one build folder would race.
.NOTPARALLEL:

help: ## print the goals
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install everything that any goal needs (Debian packages)
	@scripts/deps.sh build run test lint fuzz

$(BUILD)/build.ninja:
	@scripts/deps.sh build
	@meson setup $(BUILD) $(MESON_FLAGS) >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log

build: $(BUILD)/build.ninja ## build build/nimbus and build/nimbus-guest
	@ninja -C $(BUILD) --quiet

assets: build ## kernel, modules and demo rootfs into build/share
	@scripts/deps.sh run
	@scripts/assets.sh $(BUILD)

images: assets ## build the images of images/ (needs root, takes minutes) and install them beside the demo's
	@scripts/deps.sh run images
	@scripts/images.sh $(BUILD)

bootstrap: build ## fresh secrets and tokens for roles that are started one by one (BOOTSTRAP_FLAGS='--output FILE ...')
	@$(BUILD)/nimbus bootstrap $(or $(BOOTSTRAP_FLAGS),--output .env)

run: assets ## start Nimbus here and run a sample job in a microVM (RUN_ONCE=1: then stop)
	@scripts/run.sh $(BUILD)

test: ## set up, build and run every test
	@scripts/deps.sh build run test
	@$(MAKE) --no-print-directory $(BUILD)/build.ninja
	@meson configure $(BUILD) -Dtests=enabled # what was configured before cmocka was there has no tests
	@$(MAKE) --no-print-directory assets
	@$(MAKE) --no-print-directory check

check: # the tests alone, on what is built
	@$(PYTHON) tests/style/includes.py
	@$(PYTHON) tests/style/symbols.py $(BUILD)
	@meson test -C $(BUILD) --no-rebuild --print-errorlogs --quiet
	@PYTHON=$(PYTHON) PYTEST_FLAGS='$(PYTEST_FLAGS)' scripts/blackbox.sh $(BUILD) $(DATABASES)

# Of the black-box suite what tests/blackbox/selection.py says is worth it; SANITIZED= runs all of it.
SANITIZED ?= --sanitized
test-asan: ## the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(MAKE) --no-print-directory test BUILD=$(BUILD)-asan PYTEST_FLAGS='$(SANITIZED)' \
		MESON_FLAGS='-Doptimization=1 -Db_sanitize=address,undefined -Db_lundef=false'

# The program of before: the last one with the schema that older installations have.
PREVIOUS ?= c7ae2c9
test-previous: assets ## the program of before (PREVIOUS=COMMIT) beside this one, and this one on its data and running jobs
	@folder=$$(mktemp -d) && chmod 755 $$folder && trap 'rm -rf '$$folder EXIT && for database in $(DATABASES); do \
		NIMBUS_TEST_PREVIOUS=$(PREVIOUS) NIMBUS_TEST_PREVIOUS_BUILD=$$folder NIMBUS_BUILD=$(BUILD) \
			$(PYTHON) -m pytest -q -p no:cacheprovider tests/blackbox/test_schema.py tests/blackbox/test_upgrade.py \
			-k previous --database $$database || exit 1; \
	done

test-workflows: images ## real workflows in VMs of the Debian image; needs what the package registries have
	@scripts/deps.sh build run test
	@NIMBUS_BUILD=$(BUILD) $(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/blackbox/test_workflow.py

# The layers with threads in them: what the others' tests run has one.
THREADED ?= base net store auth role logs control agent
test-tsan: ## the threaded tests under ThreadSanitizer
	@$(MAKE) --no-print-directory $(BUILD)-tsan/build.ninja BUILD=$(BUILD)-tsan \
		MESON_FLAGS='-Doptimization=1 -Db_sanitize=thread -Db_lundef=false'
	@TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp \
		meson test -C $(BUILD)-tsan --print-errorlogs --quiet $(addprefix --suite ,$(THREADED))

bench: assets ## measure, beside a floor in the same run
	@scripts/deps.sh build run test
	@$(PYTHON) bench/run.py --build $(BUILD)

fuzz: ## build the fuzzers and run each for FUZZ_SECONDS (60)
	@scripts/deps.sh build test fuzz
	@scripts/fuzz.sh $(or $(FUZZ_SECONDS),60)

# What has a full size; test_selection sees to it that nothing is forgotten here.
CHAOS ?= $(addprefix tests/blackbox/,test_faults_*.py test_templates.py test_job_files.py test_demo.py \
	test_nimbus_run.py::test_input_output_and_errors_are_byte_for_byte)
chaos: assets ## faults at full size on both databases (an hour and more); NIMBUS_TEST_SEED=N repeats a run
	@scripts/deps.sh build run test
	@NIMBUS_SCHEDULES=10000 $(BUILD)/src/test_control_db_lease_schedules
	@for database in sqlite postgresql; do \
		NIMBUS_CHAOS=full NIMBUS_BUILD=$(BUILD) $(PYTHON) -m pytest -q -s -p no:cacheprovider \
			--database $$database $(CHAOS) || exit 1; done

lint: ## clang-format, clang-tidy, cppcheck, the include table
	@scripts/deps.sh build test lint
	@scripts/lint.sh

docs: build ## regenerate docs/reference from the program's own tables
	@for page in cli configuration errors; do $(BUILD)/nimbus reference $$page >docs/reference/$$page.md; done

man: build ## manual pages and completions into build/pages, as a package lays them out
	@scripts/pages.sh $(BUILD)/nimbus $(BUILD)/pages

format: ## clang-format in place
	@scripts/deps.sh lint
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean: ## remove what was built
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz build-lint
