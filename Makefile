# Lipstream: `make demo` shows what it does, `make help` lists the rest.

CARGO ?= cargo
DEMO_VIDEO ?= demo/avatar.mp4
DEMO_AUDIO ?= demo/speech.flac
DEMO_OUT ?= demo.mp4
BENCH_OUT ?= target/bench.json
MINUTES ?= 20
LIPSTREAM := target/release/lipstream

.DEFAULT_GOAL := build
.PHONY: help setup setup-gpu build demo serve test bench soak latency overload sources fmt lint doctor clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## install what is needed besides Rust (Debian packages, ONNX Runtime); quick when it is all there
	@scripts/setup.sh

setup-gpu: setup ## install what NVIDIA cards need besides the driver: CUDA 13, cuDNN, ONNX Runtime for them (1.2 GB)
	scripts/setup-gpu.sh $(if $(TENSORRT),--tensorrt $(TENSORRT))

build: setup ## the program, the GStreamer plugin and the bench, in target/release
	$(CARGO) build --release --workspace

demo: build ## render the demo avatar with the demo speech into ./demo.mp4
	$(LIPSTREAM) render --video $(DEMO_VIDEO) --audio $(DEMO_AUDIO) -o $(DEMO_OUT)
	@echo "Open it: $(abspath $(DEMO_OUT))"
	@echo "Frames of it at a glance: ffmpeg -i $(DEMO_OUT) -vf 'fps=2,scale=320:-1,tile=4x4' -frames:v 1 demo.png"

serve: build ## live sessions with the demo avatar; CONFIG=file.toml configures it
	$(LIPSTREAM) serve $(CONFIG)

test: export LIPSTREAM_SETUP_TESTS ?= 1
test: build ## every test: crates, elements, program, gst-launch lines
	scripts/test.py

bench: build ## throughput on the demo input, JSON in target/bench.json
	target/release/lipstream-bench --video $(DEMO_VIDEO) --audio $(DEMO_AUDIO) --json $(BENCH_OUT)

soak: build ## avatar and relay together with faults for MINUTES=20: drift, memory, threads; SOAK=--cluster: on two nodes that are restarted; JSON in target/soak.json
	bench/soak.py --minutes $(MINUTES) $(SOAK) --json target/soak.json

latency: build ## audio in to lips out, interruption, first frame, restart of a publisher; JSON in target/latency.json
	bench/latency.py --json target/latency.json

overload: build ## how many sessions fit, and that those keep their frame rate; JSON in target/overload.json
	bench/overload.py --json target/overload.json

sources: build ## sources of every frame rate and sample rate, without sound, with skewed clocks: A/V offset; JSON in target/sources.json
	bench/sources.py --json target/sources.json

fmt: ## format the Rust code
	$(CARGO) fmt --all

lint: ## formatting and clippy, warnings refused
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

doctor: build ## what of this machine is ready, and how to get the rest
	$(LIPSTREAM) doctor

clean: ## remove what was built; .lipstream (ONNX Runtime) stays
	$(CARGO) clean
	rm -f $(DEMO_OUT) demo.png
