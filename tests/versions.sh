#!/usr/bin/env bash
# The quick tests on the lowest and on the newest versions that pyproject.toml allows, each in its own environment.
# torch is the pinned one in both: an open range would fetch another build.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

$PYTHON - "$work" <<'EOF'
import pathlib, re, sys, tomllib
project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *(line for name in extras if name != "dev" for line in extras[name])]
lowest = [re.sub(r">=([^,]+).*", r"==\1", line) for line in wanted]
newest = ["torch==2.13.0" if line.startswith("torch") else line for line in wanted]
lowest = ["torch==2.13.0" if line.startswith("torch") else line for line in lowest]
tools = [line for line in extras["dev"]]
for name, lines in (("lowest", lowest), ("newest", newest)):
    pathlib.Path(sys.argv[1], f"{name}.txt").write_text("\n".join([*lines, *tools]))
EOF

for name in lowest newest; do
  $PYTHON -m venv "$work/$name"
  "$work/$name/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r "$work/$name.txt"
  "$work/$name/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation .
  echo "== $name =="
  "$work/$name/bin/python" -m pip freeze | grep -iE '^(torch|numpy|scipy|pyarrow|polars|pydantic|typer|rich|safetensors|matplotlib|jinja2|implicit|threadpoolctl|optuna|faiss-cpu|fastapi|uvicorn|uvloop|httptools|apsw|prometheus_client|psycopg)=='
  "$work/$name/bin/python" -m pytest -q -n 2 -m "not slow"
done
