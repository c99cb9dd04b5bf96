"""Seconds and memory to train and evaluate DiffRec with the authors' ML-1M settings, against a plain implementation.

    python -m benchmarks.training [--data FOLDER] [--seed 1] [--json FILE]

The rival (`rivals/dense_diffrec.py`) runs the dense chain, scores both parts every 5 epochs and keeps its level
history per example, as published. We run the chain in hidden space, score the selection part every 5 epochs and the
report part once. Both train the same number of epochs: as many as our early stopping takes. Each side has a process
of its own; training and evaluation are timed apart.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reverse_chain import machine
from benchmarks.rivals import dense_diffrec as rival
from rediffuse.config import RunConfig
from rediffuse.data.importers import diffrec as importer
from rediffuse.evaluation.evaluate import Task, evaluate
from rediffuse.evaluation.protocol import protocol_for
from rediffuse.files import write_json
from rediffuse.protocols import FitContext, FitData, Progress, Recommender
from rediffuse.registry import recipe

THREADS = 2
DATA = Path(os.environ.get("REDIFFUSE_DATA", "../shared/data")) / "ml-1m_clean"


def main() -> None:
    """Run one side in this process, or both in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with train_list.npy, valid_list.npy, test_list.npy"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", choices=("ours", "plain"))
    parser.add_argument("--epochs", type=int, default=0, help="of the plain side; 0: as many as ours took")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    if arguments.side == "ours":
        print(json.dumps(ours(arguments.data, arguments.seed)))
    elif arguments.side == "plain":
        print(json.dumps(plain(arguments.data, arguments.seed, arguments.epochs)))
    else:
        _both(arguments.data, arguments.seed, arguments.epochs, arguments.json)


def ours(data: Path, seed: int) -> dict[str, Any]:
    """Train with early stopping on the selection part, then read the report part once."""
    dataset = importer.load(data)
    protocol = protocol_for(dataset)
    chosen = recipe("diffrec", "ml-1m-clean")
    history = FitData(dataset.history(*protocol.fit), len(dataset.catalog), dataset.events.order)
    selection, report = Task.of(dataset, protocol.selection), Task.of(dataset, protocol.report)
    validating = 0.0
    last: list[Progress] = []

    def validate(model: Recommender) -> float:
        nonlocal validating
        began = time.perf_counter()
        value = evaluate(model, selection, protocol.only(protocol.select_by)).mean(protocol.select_by)
        validating += time.perf_counter() - began
        return value

    run = RunConfig(seed=seed, threads=THREADS).resolve()
    began = time.perf_counter()
    model = chosen.method.fit(chosen.config, chosen.training, history, FitContext(run, validate, last.append))
    fitted = time.perf_counter() - began
    began = time.perf_counter()
    scores = evaluate(model, report, protocol)
    reporting = time.perf_counter() - began
    return {
        "epochs": last[-1].epoch,
        "train_s": fitted - validating,
        "evaluate_s": validating + reporting,
        "metrics": {name: scores.mean(name) for name in protocol.names},
        "peak_rss_mb": _peak_mb(),
    }


def plain(data: Path, seed: int, epochs: int) -> dict[str, Any]:
    """The rival for the given number of epochs."""
    parts = (np.load(data / f"{part}_list.npy", allow_pickle=False) for part in ("train", "valid", "test"))
    _, report = rival.train(rival.ML_1M_CLEAN, *parts, epochs=epochs, seed=seed)
    best = max(range(len(report.valid)), key=lambda place: report.valid[place]["recall@20"])
    return {
        "epochs": report.epochs,
        "train_s": report.train_seconds,
        "evaluate_s": report.evaluate_seconds,
        "metrics": report.test[best],
        "peak_rss_mb": _peak_mb(),
    }


def _both(data: Path, seed: int, epochs: int, target: Path | None) -> None:
    mine = _apart("ours", data, seed, 0)
    theirs = _apart("plain", data, seed, epochs or mine["epochs"])
    ratios = {part: mine[f"{part}_s"] / theirs[f"{part}_s"] for part in ("train", "evaluate")}
    ratios["both"] = (mine["train_s"] + mine["evaluate_s"]) / (theirs["train_s"] + theirs["evaluate_s"])
    print(f"{'':>6} {'epochs':>6} {'train s':>8} {'evaluate s':>10} {'sum s':>7} {'recall@20':>9} {'peak MB':>8}")
    for name, side in (("ours", mine), ("plain", theirs)):
        total = side["train_s"] + side["evaluate_s"]
        print(
            f"{name:>6} {side['epochs']:>6} {side['train_s']:>8.1f} {side['evaluate_s']:>10.1f} {total:>7.1f} "
            f"{side['metrics']['recall@20']:>9.4f} {side['peak_rss_mb']:>8.0f}"
        )
    print("ours / plain: " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()))
    if target:
        write_json(target, {"machine": machine(THREADS), "seed": seed, "ours": mine, "plain": theirs, "ratios": ratios})


def _apart(side: str, data: Path, seed: int, epochs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training", "--side", side, "--data", str(data)]
    command += ["--seed", str(seed), "--epochs", str(epochs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
