# Every task of the project; `make help` lists them. Tools are pinned in tools/lint/go.mod and run by
# the go command, so that nothing but Go has to be installed.
SHELL := /bin/bash
TOOL  := go tool -modfile=tools/lint/go.mod
# Executions, not seconds: at the end of a time `go test` may take its own deadline for a failure (golang/go#75804).
FUZZTIME ?= 40000x
SHARED ?= ../shared
VENV ?= bench/.venv
# What the wire must stay compatible with: the last release, else the first commit.
BASE ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-list --max-parents=0 HEAD | tail -n 1)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## Build bin/triptych for this machine
	CGO_ENABLED=0 go build -o bin/triptych ./cmd/triptych

.PHONY: cross
cross: ## Build for every platform we promise, without cgo
	@for p in linux/amd64 linux/arm64 darwin/arm64; do \
		echo "$$p"; CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build -o /dev/null ./... && \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go vet ./... || exit 1; done

# What the image is called, and the tag of it: the last release and the commits since, else the commit.
IMAGE ?= docker.io/library/triptych
VERSION ?= $(or $(shell git describe --tags --dirty 2>/dev/null),devel$(shell git describe --always --abbrev=12 --dirty --exclude '*' 2>/dev/null | sed 's/^/-/'))

.PHONY: image
image: ## Build the container image of both platforms: an OCI layout in bin/image, and bin/image.tar for containerd
	go build -C tools/image -o $(CURDIR)/bin/mkimage .
	bin/mkimage -name $(IMAGE) -version $(VERSION) -revision "$$(git rev-parse HEAD 2>/dev/null)" -created "$$(git log -1 --format=%ct 2>/dev/null || echo 0)"

.PHONY: test-image
test-image: ## Vet, lint and test the program that builds the image
	go -C tools/image vet ./...
	GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/golangci-lint go -C tools/image tool -modfile=../lint/go.mod golangci-lint run --config $(CURDIR)/.golangci.yml ./...
	go -C tools/image test ./...

# containerd's client, and the namespace in it that the kubelet looks into.
CTR ?= ctr
CONTAINERD_NAMESPACE ?= k8s.io

.PHONY: image-load
image-load: ## Build the image and import it into the containerd at CONTAINERD_ADDRESS, for the kubelet
	@command -v $(CTR) >/dev/null || { echo "image-load: there is no $(CTR): expected containerd's client in PATH, or CTR=FILE"; exit 1; }
	@test -S "$(CONTAINERD_ADDRESS)" || { echo "image-load: CONTAINERD_ADDRESS=$(CONTAINERD_ADDRESS) is no socket: expected that of a containerd, such as /run/containerd/containerd.sock"; exit 1; }
	@$(MAKE) --no-print-directory image
	$(CTR) --address $(CONTAINERD_ADDRESS) --namespace $(CONTAINERD_NAMESPACE) images import bin/image.tar

.PHONY: test
test: ## Run all tests
	go test ./...

.PHONY: goldens
goldens: ## Print the measured errors against the reference implementations
	go test -count=1 -v -run 'Golden|Wild|Trajector|Generator' ./engine/model/modeldir ./engine/sampler ./engine/tokenizer ./stage/stageengine | grep -v '^=== RUN'

.PHONY: test-purego
test-purego: ## Run the engine's tests without assembly
	go test -tags purego ./engine/...

.PHONY: test-chart
test-chart: ## Test charts/triptych: lint, templates, wrong values, every mode by strict schemas, docs (the first time builds Helm: about 8 minutes)
	cd tools/k8s/charttest && go test -count=1 -timeout 30m -chart charts/triptych

.PHONY: race
race: ## Run the concurrent packages under the race detector
	CGO_ENABLED=1 go test -race -timeout 30m ./engine/device/... ./stage/... ./services/... ./orchestrator/... ./internal/...

# How long `make soak` goes on.
SOAK ?= 30m

.PHONY: soak
soak: ## Run jobs for SOAK while runtimes and services are killed, callers give up and allocations fail
	go test ./e2e -run '^TestSoak$$' -soak $(SOAK) -timeout 0 -count=1 -v

# Checks of `make test-k8s` to run, by regular expression; all of them if empty.
test-k8s: RUN ?=

.PHONY: test-k8s
test-k8s: ## Check the chart on a real Kubernetes, as root; QUICK=1 for short loads, KEEP=1 to look around afterwards
	go run ./tools/k8s test -run '$(RUN)' $(if $(QUICK),-quick) $(if $(KEEP),-keep)

.PHONY: fuzz
fuzz: ## Run every fuzz target FUZZTIME times
	@for f in $$(grep -rl --include='*_test.go' '^func Fuzz' . | sort); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$f); do \
			echo "$$(dirname $$f) $$t"; \
			go test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$(dirname $$f) || exit 1; done; done

# Packages that no wildcard finds.
TOY := ./families/testdata/toy ./families/testdata/toymodel

.PHONY: lint
lint: ## Vet, golangci-lint, gofumpt and buf lint
	go vet ./... $(TOY)
	GOLANGCI_LINT_CACHE=$(CURDIR)/.cache/golangci-lint $(TOOL) golangci-lint run ./... $(TOY)
	@unformatted="$$($(TOOL) gofumpt -l $$(git ls-files '*.go' | grep -v '\.pb\.go$$'))"; \
		if [ -n "$$unformatted" ]; then echo "not formatted by gofumpt:"; echo "$$unformatted"; exit 1; fi
	$(TOOL) buf lint

.PHONY: generate
generate: ## Generate the Go code of the protos and the assembly of the kernels
	$(TOOL) buf generate
	go generate ./engine/kernel/...

.PHONY: check-generated
check-generated: generate ## Fail if generated code differs from what is committed
	git diff --exit-code -- proto engine/kernel

.PHONY: proto-breaking
proto-breaking: ## Fail if a proto breaks its callers since the last release
	$(TOOL) buf breaking --against '.git#ref=$(BASE)'
	$(TOOL) buf breaking --against '.git#ref=$(BASE)' --path proto/triptych/stage --path proto/triptych/tensor \
		--config '{"version":"v2","modules":[{"path":"proto"}],"breaking":{"use":["WIRE"]}}' \
		--against-config '{"version":"v2","modules":[{"path":"proto"}]}'

# What of SHARED's goldens the tests read; a family's goldens join this list with its tests.
GOLDENS := README.md make_golden.py samplers starter tiny-sd15 tiny-v tokens \
	formats $(addprefix sdxl/,README.md make_golden_sdxl.py index.json prompts.json tiny-sd15 tiny-sd15-inpaint tiny-sdxl control-sd-a control-sd-b control-xl-a \
	embeddings esrgan inputs ip-adapter lora names runs tensors)

.PHONY: sync-shared
sync-shared: ## Replace the starter model and the goldens that tests read by those of SHARED, together
	rm -rf models/starter $(addprefix testdata/golden/,$(GOLDENS))
	cp -r $(SHARED)/models/starter models/starter
	cd $(SHARED)/golden && tar cf - $(GOLDENS) | tar xf - -C $(CURDIR)/testdata/golden
	chmod -R u+w models/starter testdata/golden

# Where the reports of the targets below go: bench/results/NAME.json.
bench bench-peers: NAME ?= local
# Rows whose names match, and peers separated by commas; all of them if empty.
bench bench-peers: RUN ?=
bench-peers: PEERS ?=

.PHONY: bench
bench: ## Time kernels, the stages of the starter model, start and load (about 10 minutes)
	go run ./bench -name $(NAME) -run '$(RUN)'

.PHONY: bench-peers
bench-peers: bench-env ## Time whole networks of the starter model and of Stable Diffusion 1.5's size beside other engines
	go run ./bench -models starter,sd15 -parts networks,start,load -python $(VENV)/bin/python -name $(NAME) -run '$(RUN)' -peers '$(PEERS)'

.PHONY: bench-residency
bench-residency: ## Compare the memory policy with others and with the offline optimum, over budgets (about a minute)
	go run ./cmd/triptych simulate --seed 1 --jobs 200 --arrivals poisson,bursty --budget 40%,50%,60%,70%,80%,90%,100%,110% \
		--models-mix pyramid --models-mix sd15:a,sd15:b,sd15:c,sd15:d --models-mix sd15:a=3,sd15:b=2,sdxl,pyramid \
		--oracle-width 500 --report bench/results/residency.json
	go run ./bench/goals bench/results/residency.json

.PHONY: bench-trace
bench-trace: ## Replay a trace of 200 jobs over three models on a real stack under four budgets: the ledger beside measured memory
	go run ./bench/trace -report bench/results/trace.json

.PHONY: bench-memory
bench-memory: ## Draw with SDXL at its true shapes in 8, 5.5, 4 and 2 GiB on a real stack (go run ./bench sdxl writes the model; some 15 minutes)
	go run ./bench/memory -report bench/results/memory.json

.PHONY: bench-env
bench-env: $(VENV)/.installed ## Make the virtual environment of the peers (4.7 GB), unless it is there; builds one from source

$(VENV)/.installed: $(wildcard bench/requirements*.txt)
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-deps -r bench/requirements.txt
	@# GGML_NATIVE: for this CPU. GGML_LLAMAFILE: with its blocked products for float16, which are off by default.
	CMAKE_ARGS="-DGGML_NATIVE=ON -DGGML_LLAMAFILE=ON" $(VENV)/bin/pip install --quiet --no-deps --no-build-isolation -r bench/requirements-source.txt \
		|| echo "bench-peers will go without stable-diffusion.cpp, which needs g++, cmake and ninja to be built"
	touch $@

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin
