"""The table of DDRM and its controls, small: every row is there, and DDRM is held against each."""

from pathlib import Path

from benchmarks import ddrm
from rediffuse.config import RunConfig
from rediffuse.data.dataset import Dataset
from rediffuse.evaluation.protocol import protocol_for
from rediffuse.registry import Recipe


def test_the_table_holds_every_control(tiny: Dataset, tmp_path: Path) -> None:
    protocol = protocol_for(tiny, seeds=(1, 2))
    table = ddrm.Table(tiny, protocol, RunConfig(device="cpu", threads=1), tmp_path)
    given = {"als.iterations": 1, "als.factors": 8, "ddrm.epochs": 1, "ddrm.hidden": [8], "ddrm.levels": 3}
    chosen = ddrm.measured(table, (1, 2), "als", None, given, 0)
    assert isinstance(chosen, Recipe)
    assert (vars(chosen.config)["tables"], vars(chosen.config)["backbone"]) == (None, "als")
    assert {name: len(scores) for name, scores in table.rows.items()} == dict.fromkeys(
        ("als, u . i", "history mean", "ddrm", "ddrm, trained without noise", *ddrm.SAME_WEIGHTS), 2
    )
    rows = ddrm.against(table.over_seeds(), protocol.select_by)
    assert "versus" not in rows["ddrm"]
    for name, row in rows.items():
        if name != "ddrm":
            gap = row["ddrm_minus_this"]
            assert abs(rows["ddrm"]["mean"] - row["mean"] - gap["mean"]) < 1e-9
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
