"""rediffuse: the recommender system built on diffusion models.

The tree is the flow of data; read its folders in this order and you have read the system:

    data        what happened: events, catalog, splits, importers, the embedded world
    spaces      where x_0 lives: rows, or a latent space of them; vectors of items
    noise       the forward process x_t = alpha[t] x_0 + sigma[t] eps, its schedules, its posterior
    networks    plain building blocks
    denoisers   (x_t, t, cond) -> x_0; `collapse` runs any of them without touching the catalog
    samplers    (denoiser, x, levels) -> x_0: ancestral, ddim, heun, dpmpp; where to start, which levels, guidance, draws
    grounding   points -> items: blocked exact top-k; unlike items in a list
    training    the loop, the levels to train on, moments and their conditions, stopping, checkpoints
    evaluation  protocol, metrics, intervals, paired tests, calibration, studies of one model, the report
    artifacts   a trained model on disk: a folder of data, verified
    models      one published method a file; baselines: the classics
    recipes     the one table of methods, and every setting of one decided
    facade      a model that speaks the shop's ids
    registry    from a recipe to a fitted model, from a folder to answers
    serving     an engine, a store of events, HTTP around them, pages; `app` knows no tensors, `engine` no HTTP
    cli         a file a verb

The public names below load on first use; `import rediffuse` imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse.config import RunConfig as RunConfig
    from rediffuse.data.dataset import Dataset as Dataset
    from rediffuse.evaluation.evaluate import Task as Task
    from rediffuse.evaluation.evaluate import evaluate as evaluate
    from rediffuse.evaluation.protocol import Protocol as Protocol
    from rediffuse.facade import Answer as Answer
    from rediffuse.facade import Model as Model
    from rediffuse.recipes import recipe as recipe
    from rediffuse.registry import fit as fit
    from rediffuse.registry import load as load
    from rediffuse.types import Options as Options
    from rediffuse.types import Query as Query
    from rediffuse.types import Ranking as Ranking

__version__ = "0.1.0"

_HOME = {
    "Answer": "facade",
    "Dataset": "data.dataset",
    "Model": "facade",
    "Options": "types",
    "Protocol": "evaluation.protocol",
    "Query": "types",
    "Ranking": "types",
    "RunConfig": "config",
    "Task": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "fit": "registry",
    "load": "registry",
    "recipe": "recipes",
}

__all__ = [
    "Answer",
    "Dataset",
    "Model",
    "Options",
    "Protocol",
    "Query",
    "Ranking",
    "RunConfig",
    "Task",
    "__version__",
    "evaluate",
    "fit",
    "load",
    "recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rediffuse' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rediffuse.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
