"""What mf, lightgcn and sgl share: who is answered from what, their losses by hand, exact resume, going on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid

from rediffuse.baselines.factors import AS_PUBLISHED, FactorMethod, FactorsConfig, FactorsTraining, PairTraining
from rediffuse.baselines.lightgcn import GraphNetwork, LightGCN, LightGCNConfig
from rediffuse.baselines.mf import MF, MFNetwork
from rediffuse.baselines.sgl import SGL, SGLConfig, SGLTraining, contrast
from rediffuse.config import RunConfig
from rediffuse.errors import InvalidInput, UnsupportedOption
from rediffuse.networks.graph import distinct
from rediffuse.protocols import Embeds, FitContext, FitData, Progress
from rediffuse.types import Options, Query, Ragged

ITEMS = 12
CPU = RunConfig(device="cpu", threads=1)
METHODS: list[type[FactorMethod]] = [MF, LightGCN, SGL]


def histories(users: int = 20) -> Ragged:
    generator = torch.Generator().manual_seed(0)
    return Ragged.of([torch.randperm(ITEMS, generator=generator)[: user % 5].tolist() for user in range(users)])


KEYS = torch.arange(20) * -7 + 50
DATA = FitData(histories(), ITEMS, "none", keys=KEYS)


def fitted(
    method: type[FactorMethod],
    data: FitData = DATA,
    context: FitContext | None = None,
    epochs: int = 4,
    **settings: Any,
) -> FactorMethod:
    config = method.Config.make({"embedding_size": 6, **settings})
    training = FactorsTraining(batch_size=8, validate_every=2, learning_rate=0.01).model_copy(update={"epochs": epochs})
    return method.fit(config, training, data, context or FitContext(CPU))


def named(keys: Tensor, history: Ragged) -> Query:
    return replace(Query.from_history(history), key=keys)


def points(model: FactorMethod, query: Query) -> Tensor:
    """By the scores of all items, which determine them: the table of items has full rank."""
    ranking = model.recommend(replace(query, exclude=None), model.n_items)
    scores = torch.zeros(len(query), model.n_items).scatter(1, ranking.items, ranking.scores)
    return torch.linalg.lstsq(model.embeddings().items, scores.t()).solution.t()


@pytest.mark.parametrize("method", METHODS)
def test_the_known_have_their_vector_and_others_their_history(method: type[FactorMethod]) -> None:
    """A user without events has no vector, whatever their name."""
    model = fitted(method)
    assert isinstance(model, Embeds)
    tables = model.embeddings()
    assert tables.users is not None
    assert tables.keys is not None
    assert sorted(tables.keys.tolist()) == sorted(KEYS[DATA.history.lengths > 0].tolist())
    history = Ragged.of([[3, 1], [3, 1], [3, 1]])
    found = points(model, named(torch.tensor([int(KEYS[7]), int(KEYS[5]), 999]), history))
    row = int((tables.keys == KEYS[7]).nonzero())
    torch.testing.assert_close(found[0], tables.users[row], rtol=1e-3, atol=1e-4)
    folded = (model.newcomer[3] + model.newcomer[1]) / 2**0.5
    torch.testing.assert_close(found[1:], folded.expand(2, -1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_everybody_may_be_answered_from_their_history(method: type[FactorMethod]) -> None:
    model = fitted(method, fold_in=True)
    found = points(model, named(torch.stack((KEYS[7], torch.tensor(999))), Ragged.of([[2], [2]])))
    torch.testing.assert_close(found, model.newcomer[2].expand(2, -1), rtol=1e-3, atol=1e-4)


def test_nameless_users_leave_no_vectors() -> None:
    model = fitted(MF, replace(DATA, keys=None))
    assert model.embeddings().users is None
    assert set(model.state()) == {"items", "newcomer"}
    assert isinstance(MF.restore(model.config, model.state(), "cpu"), MF)


def test_the_loss_of_bpr_by_hand() -> None:
    """One free item for each user, so the draw is known."""
    config = FactorsConfig.make(AS_PUBLISHED, embedding_size=2, penalty=0.2)
    network = MFNetwork(Ragged.of([[0, 2], [1, 2]]), 3, config, CPU)
    task = PairTraining(network, 4)
    found = task.loss(torch.tensor([0, 3]), torch.Generator().manual_seed(0))["loss"]
    for at, (user, item, free) in enumerate([(0, 0, 1), (1, 2, 0)]):
        u, i, j = network.users[user], network.items[item], network.items[free]
        square = u @ u + i @ i + j @ j
        torch.testing.assert_close(found[at], -logsigmoid(u @ i - u @ j) + 0.1 * square)


@pytest.mark.parametrize("similarity", ["inner", "cosine"])
def test_the_loss_of_softmax_by_hand(similarity: str) -> None:
    config = FactorsConfig.make(embedding_size=2, similarity=similarity, temperature=0.5, penalty=0.0)
    network = MFNetwork(Ragged.of([[0, 2], [1]]), 4, config, CPU)
    found = PairTraining(network, 4).loss(torch.tensor([1, 2]), torch.Generator().manual_seed(0))["loss"]
    for at, (user, item) in enumerate([(0, 2), (1, 1)]):
        u = network.users[user]
        plain, unit = network.items @ u, cosine_similarity(network.items, u.unsqueeze(0))
        scores = (plain if similarity == "inner" else unit) / 0.5
        torch.testing.assert_close(found[at], -scores.log_softmax(0)[item])


def test_the_agreement_by_hand() -> None:
    """Rows 4 and 1 are the batch; row 4 stands twice and counts so, but is one rival."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(6, 3, generator=generator) for _ in range(2))
    found = contrast(one, other, torch.tensor([4, 1, 4]), 0.5)
    cosine = cosine_similarity(one[[4, 1]].unsqueeze(1), other[[4, 1]].unsqueeze(0), dim=2) / 0.5
    own = -cosine.log_softmax(1).diagonal()
    torch.testing.assert_close(found, own[[0, 1, 0]])


def test_views_are_thinned_anew_each_epoch() -> None:
    config = SGLConfig(embedding_size=4, edge_dropout=0.5)
    network = GraphNetwork(Ragged.of([list(range(user % 2, 400, 2)) for user in range(5)]), 400, config, CPU)
    task, generator = SGLTraining(network, config, 64), torch.Generator().manual_seed(0)
    seen = []
    for _ in range(2):
        assert sum(len(batch) for batch in task.batches(generator)) == 1000
        seen += [view.by_user.items for view in task.views]
    assert all(400 < len(view) < 600 for view in seen)
    assert len({tuple(view.tolist()) for view in seen}) == 4


def test_the_loss_of_sgl_is_that_of_lightgcn_and_the_agreement() -> None:
    config = SGLConfig(embedding_size=4, contrast_weight=0.3)
    network = GraphNetwork(distinct(DATA.history, ITEMS), ITEMS, config, CPU)
    task, batch = SGLTraining(network, config, 8), torch.arange(8)
    next(iter(task.batches(torch.Generator().manual_seed(0))))
    found = task.loss(batch, torch.Generator().manual_seed(1))
    plain = PairTraining(network, 8).loss(batch, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found["loss"], plain["loss"] + 0.3 * found["contrast"])
    first, second = (fitted(method, epochs=0).state() for method in (SGL, LightGCN))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Interrupted(Exception):  # noqa: N818
    """Stands for a killed process."""


class Store:
    """Due at every step; breaks at a given one."""

    def __init__(self, breaks_at: int) -> None:
        self.kept: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        self.count, self.breaks_at = 0, breaks_at

    def due(self) -> bool:
        return True

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, object]) -> None:
        self.count += 1
        self.kept = {name: tensor.clone() for name, tensor in tensors.items()}, dict(state)
        if self.count == self.breaks_at:
            raise Interrupted

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return self.kept


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_an_interrupted_training_ends_in_the_same_bits(method: type[FactorMethod], loss: str) -> None:
    whole = fitted(method, loss=loss, negatives=4).state()
    store = Store(breaks_at=8)
    context = FitContext(CPU, checkpoint=store)
    with pytest.raises(Interrupted):
        fitted(method, context=context, loss=loss, negatives=4)
    again = fitted(method, context=context, loss=loss, negatives=4).state()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_training_learns() -> None:
    courses: list[list[Progress]] = []
    for loss in ("bpr", "softmax"):
        course: list[Progress] = []
        fitted(LightGCN, context=FitContext(CPU, report=course.append), epochs=30, loss=loss, penalty=0.0)
        courses.append(course)
    assert all(course[-1].loss < 0.9 * course[0].loss for course in courses)


@pytest.mark.parametrize("method", METHODS)
def test_an_earlier_model_is_gone_on_from(method: type[FactorMethod]) -> None:
    """Its items come first; users are found by name, wherever they stand now; new ones begin as ever."""
    earlier = fitted(method, similarity="cosine")
    turned = torch.arange(19, -1, -1)
    data = FitData(DATA.history.select(turned), ITEMS + 2, "none", keys=KEYS[turned])
    start = fitted(MF, data, FitContext(CPU, initial=earlier.state()), epochs=0)
    old, new = earlier.embeddings(), start.embeddings()
    torch.testing.assert_close(new.items[:ITEMS], old.items)
    assert old.users is not None
    assert new.users is not None
    torch.testing.assert_close(new.users, old.users)
    with pytest.raises(InvalidInput, match="The earlier model has other vectors"):
        fitted(method, context=FitContext(CPU, initial=earlier.state()), embedding_size=5)


def test_double_precision_is_kept() -> None:
    model = fitted(LightGCN, context=FitContext(CPU.model_copy(update={"precision": "float64"})))
    assert all(tensor.dtype == torch.float64 for name, tensor in model.state().items() if name != "keys")


def test_the_layers_are_a_setting() -> None:
    one, two = (fitted(LightGCN, epochs=0, layers=layers).embeddings().items for layers in (1, 3))
    assert not torch.equal(one, two)
    assert isinstance(LightGCN.Config.make(layers=2), LightGCNConfig)


def test_options_are_refused() -> None:
    with pytest.raises(UnsupportedOption, match="sgl"):
        fitted(SGL, epochs=0).recommend(Query.from_history(Ragged.of([[1]])), 3, options=Options(steps=2))
