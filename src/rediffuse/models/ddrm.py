"""DDRM: a head over frozen vectors of users and items, which denoises the mean of a history and ranks by what it finds.

| equation of the paper | here |
|---|---|
| forward process over both vectors, eq. 4-5 | `noise/process.py::add_noise` |
| denoisers f_u and f_i, each steered by the other vector, eq. 8 | `denoisers/point.py::PointDenoiser` |
| reconstruction, ranking and the weight of an example, eq. 9-13 | `models/ddrm_training.py::DDRMTask.loss` |
| the mean of the history, noised a little, and the way back, section 3.4 | `samplers/starts.py::noised_history`, `samplers/ancestral.py` |
| inner products with the items | `spaces/embeddings.py::Embeddings.score` |

Zhao, Wang, Xu, Feng, He, Chua 2024, "Denoising diffusion recommender model". The settings' defaults are a mended version: noise
that matters, trained on what an answer begins with. The presets are the authors' settings (docs/cards/ddrm.md).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor

from rediffuse.config import FrozenConfig
from rediffuse.data.weighting import weigh
from rediffuse.denoisers.latent import Latent
from rediffuse.denoisers.point import PointDenoiser
from rediffuse.models.answering import Answered, Answering
from rediffuse.models.ddrm_training import DDRMConfig, DDRMTask, DDRMTraining, Points
from rediffuse.models.gaussian import part_of
from rediffuse.noise.predictions import as_denoiser
from rediffuse.protocols import FitContext, FitData, Range, Tunable
from rediffuse.spaces.embeddings import Embeddings
from rediffuse.spaces.tables import frozen_tables, tables_in, tensors_of
from rediffuse.training.loop import learn
from rediffuse.training.rows import generators
from rediffuse.types import Condition, Query

OFFICIAL: Mapping[str, object] = {
    "train_on": "item",
    "example": "user",
    "user_side": True,
    "negative": "raw",
    "subject": "user",
    "skip": False,
    "unit": False,
    "condition_drop": 0.0,
    "dropout": 0.5,
    "first_beta": 1e-5,
    "weight": "sigmoid_pow",
}
"""What the authors' runs share. A start above the noisiest level, which their code clamps, is that level here."""


class DDRM(Answered):
    """Scores are inner products of the last x_0 estimate with the vectors of the items.

    A new user is a posted history; a user whom the tables know, found by their name, is known by their vector where
    `subject` says so. Scores are unbounded reals, no probabilities.
    Limits: holds the tables, (U + I) D numbers, a user's among them. An earlier model is not gone on from: the axes of a
        backbone's vectors differ from fit to fit.
    """

    Config: ClassVar[type[FrozenConfig]] = DDRMConfig
    Training: ClassVar[type[FrozenConfig]] = DDRMTraining
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        name: {
            **OFFICIAL,
            "backbone": backbone,
            "backbone_settings": {"layers": hops} if hops else {},
            "hidden": (dims[1], dims[0], dims[1]),
            "activation": activation,
            "levels": levels,
            "noise_min": low,
            "noise_max": high,
            "noise_scale": scale,
            "reconstruction": alpha,
            "weight_power": beta,
        }
        # The authors' table; what they call MF is a LightGCN where it has hops.
        for name, backbone, dims, activation, levels, low, high, scale, hops, alpha, beta in (
            ("mf-ml-1m", "lightgcn", (100, 1000), "sigmoid", 20, 1e-4, 1e-3, 1e-4, 4, 0.4, 1.0),
            ("mf-yelp", "lightgcn", (200, 1000), "relu", 50, 1e-3, 1e-1, 1e-4, 2, 0.2, 0.9),
            ("mf-amazon-book", "mf", (200, 600), "sigmoid", 3, 1e-4, 1e-3, 1e-3, 0, 0.2, 0.9),
            ("lightgcn-ml-1m", "lightgcn", (200, 1100), "relu", 50, 1e-4, 1e-3, 1e-2, 2, 0.1, 0.0),
            ("lightgcn-yelp", "lightgcn", (200, 1000), "relu", 30, 1e-4, 1e-2, 1e-4, 3, 0.3, 0.8),
            ("lightgcn-amazon-book", "lightgcn", (200, 1000), "relu", 50, 1e-4, 1e-3, 1e-2, 2, 0.5, 0.0),
            ("sgl-ml-1m", "sgl", (300, 1000), "sigmoid", 50, 1e-4, 1e-3, 1e-3, 5, 0.2, 0.3),
            ("sgl-yelp", "sgl", (200, 1000), "sigmoid", 50, 1e-3, 1e-2, 1e-4, 2, 0.3, 0.05),
            ("sgl-amazon-book", "sgl", (300, 1000), "sigmoid", 3, 1e-4, 1e-3, 1e-4, 2, 0.6, 0.5),
        )
    } | {
        # Predicted from what came before, as in a shop; needs events in order.
        "next": {"given": "before"},
        # The published way, mended: noise that matters, negatives treated like positives, one vector for who asks.
        "items": {"train_on": "item", "user_side": True, "reconstruction": 0.2},
        # The best of 36 settings on the selection part of the set, over its LightGCN.
        "ml-1m-clean": {
            "backbone": "lightgcn:ml-1m-clean",
            "given": "before",
            "recency": "exponential",
            "half_life": 20.0,
            "hidden": (1000, 200, 1000),
            "dropout": 0.08,
            "history_dropout": 0.38,
            "levels": 5,
            "noise_max": 0.163,
            "temperature": 0.223,
            "reconstruction": 0.17,
            "learning_rate": 2.35e-3,
            "batch_size": 8192,
            "average": 0.99,
            "epochs": 80,
            "validate_every": 4,
            "patience": 12,
        },
        # Controls: the same networks in one pass, and without any noise.
        "one-step": {"steps": 1},
        "no-noise": {"noise_scale": 0.0, "levels": 1},
    }
    controls: ClassVar[Mapping[str, Sequence[str]]] = {"one-step": ("steps",), "no-noise": ("noise_scale", "levels")}
    tunable: ClassVar[Mapping[str, Tunable]] = {
        "learning_rate": Range(1e-4, 3e-3, log=True),
        "levels": (5, 20, 50),
        "noise_max": Range(0.05, 0.9),
        "dropout": Range(0.0, 0.5),
        "history_dropout": Range(0.0, 0.6),
        "temperature": Range(0.1, 2.0, log=True),
        "reconstruction": Range(0.0, 0.9),
        "hidden": ((200,), (400,), (1000, 200, 1000)),
    }

    def __init__(self, config: DDRMConfig, tables: Embeddings, denoiser: PointDenoiser) -> None:
        """Wrap frozen tables and a trained network."""
        self.config, self.tables, self.denoiser = config, tables, denoiser
        self.points = Points.of(tables, unit=config.unit)
        chain = Latent(self.points, as_denoiser(denoiser, config.prediction, config.noise_schedule()))
        self.answering = Answering("ddrm", config, chain, tables.items, config.thinning, self._known)

    @classmethod
    def fit(cls, config: FrozenConfig, training: FrozenConfig, data: FitData, context: FitContext) -> Self:
        """Take the tables, then train the denoisers over them.

        Raises: as `frozen_tables`; InvalidInput for data without order where it counts, or without an example;
            TrainingDiverged.
        """
        assert isinstance(config, DDRMConfig)
        assert isinstance(training, DDRMTraining)
        config.check_order(data.order)
        tables = frozen_tables(config, data, context)
        first, generator = generators(context.run)
        device, dtype = tables.items.device, tables.items.dtype
        item, user = (config.denoiser(tables.width, first).to(device, dtype) for _ in range(2))
        model = cls(config, tables, item)
        task = DDRMTask(config, training.batch_size, model.points, item, data)
        if config.user_side:
            task.with_user_side(user)
        learn(task, training, generator, context, lambda: model)
        return model

    def state(self) -> dict[str, Tensor]:
        """The tables and the weights of f_i; no answer uses f_u."""
        weights = {f"item.{name}": tensor.detach() for name, tensor in self.denoiser.state_dict().items()}
        return {**tensors_of(self.tables), **weights}

    @classmethod
    def restore(cls, config: FrozenConfig, state: Mapping[str, Tensor], device: str) -> Self:
        """Rebuild from `state`; no file that the settings name is looked at."""
        assert isinstance(config, DDRMConfig)
        tables = tables_in(state, device)
        denoiser = config.denoiser(tables.width, None).to(device, tables.items.dtype)
        denoiser.load_state_dict(part_of(state, "item."))
        denoiser.eval()
        return cls(config, tables, denoiser)

    def _known(self, query: Query) -> Condition:
        """Who asks, as a vector."""
        mean = self.points.encode(weigh(query.history, self.config, self.n_items, query.at_us))
        return self.points.subject(query, mean, user=self.config.subject == "user")
