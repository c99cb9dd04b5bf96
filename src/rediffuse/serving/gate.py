"""What a model must have reached before it may take the place of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rediffuse.artifacts import ModelFolder
from rediffuse.errors import InvalidInput, say


@dataclass(frozen=True)
class Gate:
    """A metric of the selection part, as model folders record it; larger is better."""

    metric: str
    """For example ndcg@10."""
    share: float = 0.95
    """Of what the model that answers reached."""

    def check(self, candidate: ModelFolder, current: ModelFolder) -> None:
        """Let a candidate through, or say why not.

        Beside the model that answers, which may have been measured on other days, it must not be worse than popularity
        on its own.

        Raises: InvalidInput when it reached less, or nobody measured it.
        """
        reached = self._mean(candidate.metrics)
        if reached is None:
            remedy = f"Train it by a protocol with {self.metric}, or start the service without the gate"
            raise InvalidInput(say(f"Nobody measured {self.metric} of this model", remedy=remedy))
        floors = {
            f"{self.share:.0%} of the model that answers": (self.share, current.metrics),
            "popularity": (1.0, candidate.made.get("controls", {}).get("popularity", {})),
        }
        for name, (share, metrics) in floors.items():
            other = self._mean(metrics)
            if other is not None and reached < share * other:
                raise InvalidInput(
                    say(
                        f"The model reached less than {name}",
                        got=f"{self.metric} {reached:.4f}",
                        allowed=f"{share * other:.4f} or more",
                        remedy="Train a better one, or start the service with another gate",
                    )
                )

    def _mean(self, metrics: Mapping[str, Any]) -> float | None:
        return metrics.get(self.metric, {}).get("mean")
