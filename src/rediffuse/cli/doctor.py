"""`doctor`: is this machine ready?"""

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

import torch

from rediffuse import registry
from rediffuse.cli.console import JsonOption, show_table, tell, write_result
from rediffuse.config import RunConfig
from rediffuse.data.importers.atelier import load
from rediffuse.data.splits import GlobalTime
from rediffuse.evaluation.protocol import Protocol

PACKAGES = ("rediffuse", "torch", "numpy", "scipy", "polars", "pyarrow", "pydantic", "safetensors")
EXTRAS = {
    "plot": ("matplotlib", "jinja2"),
    "tune": ("optuna",),
    "ann": ("faiss",),
    "baselines": ("implicit", "threadpoolctl"),
    "serve": ("fastapi", "uvicorn", "httptools", "uvloop", "apsw", "prometheus_client", "jinja2"),
    "postgres": ("psycopg",),
}
"""What each extra of the package installs, by the names that are imported."""


def doctor(json: JsonOption = None) -> None:
    """Check versions, device, memory, extras, and train a tiny model from end to end.

    Example: `rediffuse doctor`
    """
    facts = {name: importlib.metadata.version(name) for name in PACKAGES}
    run = RunConfig().resolve()
    facts |= {"device": run.device, "threads": str(run.threads), "cpu": torch.backends.cpu.get_cpu_capability()}
    facts["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    facts["disk free here"] = f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB"
    for extra, names in EXTRAS.items():
        missing = [name for name in names if not _installed(name)]
        facts[f"extra {extra}"] = f'missing: pip install "rediffuse[{extra}]"' if missing else "installed"
    facts["end to end"] = _end_to_end(run)
    show_table("rediffuse doctor", ("check", "finding"), facts.items())
    write_result(json, facts)
    tell("All is well. Next: rediffuse quickstart")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _end_to_end(run: RunConfig) -> str:
    """Train DiffRec for two epochs on the tiny world and ask it for a list."""
    dataset = load("tiny").with_split(GlobalTime())
    fitted = registry.fit(registry.recipe("diffrec", None, {"hidden": [32], "epochs": 2}), dataset, Protocol(), run)
    return f"diffrec trained on {dataset.name} in {fitted.seconds:.1f} s"
