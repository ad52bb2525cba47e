# Two commands to know: `make demo` and `make test`. Both set up .venv by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := outputs/demo
# mypy and editors see the top-level folders under their import name through these links.
LINKS := .typecheck/promptseg

.PHONY: demo test fuzz browser lint format wheel docker train-pocket clean

demo: $(VENV)/.installed-demo
	mkdir -p $(DEMO)
	$(BIN)/python -c "from PIL import Image; from skimage import data; Image.fromarray(data.chelsea()).save('$(DEMO)/cat.jpg', quality=95)"
	$(BIN)/promptseg segment $(DEMO)/cat.jpg -t cat --out $(DEMO)

test: lint browser
	$(BIN)/python -m pytest

# Damaged files through every reader, FUZZ inputs each; `make test` tries 500.
FUZZ ?= 20000
fuzz: $(VENV)/.installed-dev
	PROMPTSEG_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz

# The tests of the web page drive a real browser. Where it is missing and may be installed, it is;
# elsewhere those tests fail and say what to do.
browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
	|| command -v google-chrome >/dev/null || test ! -x /usr/bin/apt-get || test "$$(id -u)" != 0 \
	|| { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y chromium; }

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(LINKS)
	mkdir -p $(LINKS)
	ln -s $(CURDIR)/src/promptseg/*.py $(CURDIR)/src/promptseg/py.typed $(LINKS)
	ln -s $(CURDIR)/models $(CURDIR)/pipeline $(CURDIR)/apps $(LINKS)
	PYTHONPATH=.typecheck $(BIN)/lint-imports --no-cache
	MYPYPATH=.typecheck $(BIN)/mypy -p promptseg
	MYPYPATH=.typecheck:training:benchmarks $(BIN)/mypy training/*.py benchmarks/*.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# dist/*.whl, with the weights of pocket. An earlier build/ would leave its files in it.
wheel: $(VENV)/.installed-dev
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

docker:
	@command -v docker >/dev/null || { echo "docker is not installed; docs.docker.com/get-docker tells how" >&2; exit 2; }
	@docker info >/dev/null 2>&1 || { echo "docker is installed, but its service does not answer; docker info tells why" >&2; exit 2; }
	docker build --tag promptseg .

# Train the pocket weights further from pictures with region masks: make train-pocket DATA=folder
# It goes on from its last checkpoint, also with a larger STEPS; docs/data.md describes the folder.
STEPS ?= 6000
COOLDOWN ?= 1500
train-pocket: $(VENV)/.installed-dev
	test -n "$(DATA)" || { echo "say where the pictures are: make train-pocket DATA=folder"; exit 2; }
	$(BIN)/python training/class_names.py models/weights/imagenet_names.safetensors
	$(BIN)/python training/train_pocket.py $(DATA) --out runs/pocket --init models/weights --steps $(STEPS)
	$(BIN)/python training/train_pocket.py $(DATA) --out runs/pocket --cooldown $(COOLDOWN)
	cp runs/pocket/cooldown-$(STEPS)/*_pocket.safetensors models/weights/
	cd models/weights && sha256sum *.safetensors > SHA256SUMS

clean:
	rm -rf $(VENV) .typecheck .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist outputs
	rm -rf promptseg.egg-info src/promptseg.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of extras: what is installed is not installed again until pyproject.toml
# changes. The tests' set includes the demo's, and packages that are installed without theirs.
$(VENV)/.installed-%: pyproject.toml tests/without-dependencies.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	test $* != dev || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --requirement tests/without-dependencies.txt
	touch $@

.PRECIOUS: $(VENV)/.installed-%
