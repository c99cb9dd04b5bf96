"""An error in the n-th file operation, for every n: a typed error, never half a folder that loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
LEAST = {"import": 10, "checkpoint": 10, "model": 12}
"""Operations that each job makes at least; fewer would mean that the layer does not see them."""


@pytest.mark.parametrize("how", ["enospc", "eio", "short"])
@pytest.mark.parametrize("job", LEAST)
def test_no_write_error_leaves_half_of_anything(faults: dict[str, str], job: str, how: str) -> None:
    script = Path(__file__).with_name("every_write.py")
    done = subprocess.run([sys.executable, script, job, how], env=faults, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    assert found["operations"] >= LEAST[job]
