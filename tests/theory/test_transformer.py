"""The transformer denoiser: exact in hidden space, steered by level and condition, row by row."""

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from rediffuse.denoisers import collapse
from rediffuse.denoisers.collapsed import project_exactly
from rediffuse.denoisers.conditioning import Conditioner
from rediffuse.denoisers.transformer import TransformerDenoiser
from rediffuse.errors import InvalidConfig, InvalidInput
from rediffuse.networks.transformer import TransformerBlock
from rediffuse.noise import NoiseSchedule, linear_variance
from rediffuse.protocols import Denoiser, Noise
from rediffuse.random import PhiloxNoise
from rediffuse.samplers import SAMPLERS, STARTS, evenly
from rediffuse.samplers.guidance import guided
from rediffuse.types import Condition, SparseRows

KEY = torch.tensor([3, -8, 1 << 60, 0])
T_EACH = torch.tensor([1, 2, 3, 4])
SIZES = {"season": 0, "device": 3}


def awake(module: nn.Module, seed: int = 1) -> None:
    """Random values where training would put some: biases, gates, and how the level steers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() == 1 or not weight.any():
                weight.normal_(0, 0.3, generator=generator)


def network(
    width: int,
    groups: int,
    layers: int = 2,
    dtype: torch.dtype = torch.float64,
    *,
    token: int = 8,
    sizes: dict[str, int] | None = None,
    condition_width: int = 6,
    seed: int = 0,
) -> TransformerDenoiser:
    generator = torch.Generator().manual_seed(seed)
    of = torch.cat((torch.arange(groups), torch.randint(groups, (width - groups,), generator=generator)))
    conditioner = Conditioner(sizes, condition_width, generator=generator) if sizes else None
    denoiser = TransformerDenoiser(
        of[torch.randperm(width, generator=generator)],
        token,
        layers,
        2,
        conditioner=conditioner,
        generator=generator,
    )
    awake(denoiser)
    return denoiser.to(dtype).eval()


def some_rows(width: int, dtype: torch.dtype = torch.float64) -> SparseRows:
    """Four histories of different lengths, one of them empty, weighted."""
    generator = torch.Generator().manual_seed(1)
    sizes = [0, 1, width // 2, width]
    items = torch.cat([torch.randperm(width, generator=generator)[:size] for size in sizes])
    indptr = torch.tensor([0, *sizes]).cumsum(0)
    return SparseRows(indptr, items, torch.rand(len(items), generator=generator, dtype=dtype) + 0.5, width)


def conditions(seasons: Sequence[float], devices: Sequence[int], there: Sequence[bool]) -> Condition:
    values = {"season": torch.tensor(seasons, dtype=torch.float64), "device": torch.tensor(devices)}
    return Condition(values, dict.fromkeys(SIZES, torch.tensor(there)))


def schedule_of(T: int, first_beta: float | None, scale: float = 20.0) -> NoiseSchedule:
    return linear_variance(T, scale=scale, low=0.001, high=0.04, first_beta=first_beta)


def both_ways(
    denoiser: TransformerDenoiser,
    x: SparseRows,
    T: int,
    schedule: NoiseSchedule,
    sampler: str,
    start: str,
    noise: Noise,
    *,
    draw: bool,
) -> tuple[Tensor, Tensor]:
    """The answer of the chain over the catalog, and that of the chain in hidden space."""
    collapsed, levels = collapse(denoiser), evenly(T)
    projected = project_exactly(denoiser, noise, x.width)
    walk = SAMPLERS[sampler]
    dense = STARTS[start](x.dense(), T, schedule, noise)
    dense = walk(denoiser, dense, levels, schedule, noise=noise if draw else None)
    u = STARTS[start](collapsed.lift(x), T, schedule, projected)
    u = walk(collapsed.inner, u, levels[:-1], schedule, noise=projected if draw else None)
    return dense, collapsed.last(u, torch.full((len(u),), int(levels[-2])))


@pytest.mark.parametrize(
    ("width", "groups", "layers"), [(40, 1, 1), (40, 3, 2), (40, 8, 1), (5, 1, 2), (5, 5, 1), (40, 4, 0)]
)
@pytest.mark.parametrize("T", [1, 2, 5])
@pytest.mark.parametrize("first_beta", [1e-5, None])
def test_collapsed_is_dense(width: int, groups: int, layers: int, T: int, first_beta: float | None) -> None:
    denoiser, rows, schedule = network(width, groups, layers), some_rows(width), schedule_of(T, first_beta)
    draws = PhiloxNoise(5, KEY)
    with torch.no_grad():
        for sampler, start, draw in product(SAMPLERS, STARTS, (False, True)):
            dense, found = both_ways(denoiser, rows, T, schedule, sampler, start, draws, draw=draw)
            torch.testing.assert_close(found, dense, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_long_chain_collapses_too(sampler: str) -> None:
    denoiser, rows, schedule = network(40, 4), some_rows(40), schedule_of(40, 1e-5)
    with torch.no_grad():
        dense, found = both_ways(denoiser, rows, 40, schedule, sampler, "history", PhiloxNoise(5, KEY), draw=True)
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-10)


def test_draws_do_change_the_answer() -> None:
    """Else the equality above would say little."""
    denoiser, rows, schedule = network(40, 4), some_rows(40), schedule_of(5, None)
    draws = PhiloxNoise(5, KEY)
    with torch.no_grad():
        answers = [
            both_ways(denoiser, rows, 5, schedule, "ancestral", start, draws, draw=draw)[1]
            for start, draw in product(STARTS, (False, True))
        ]
    for a, b in product(range(6), range(6)):
        assert (a == b) == torch.allclose(answers[a], answers[b], atol=1e-3)


@pytest.mark.parametrize(("groups", "layers"), [(1, 1), (8, 2)])
@pytest.mark.parametrize("T", [5, 40])
def test_float32_keeps_the_scores_and_the_lists(groups: int, layers: int, T: int) -> None:
    width = 400
    denoiser, rows = network(width, groups, layers, torch.float32, token=16), some_rows(width, torch.float32)
    for schedule, draw in product((schedule_of(T, 1e-5, 0.25), schedule_of(T, None)), (False, True)):
        with torch.no_grad():
            dense, found = both_ways(
                denoiser, rows, T, schedule, "ancestral", "history", PhiloxNoise(5, KEY), draw=draw
            )
        assert float((found - dense).abs().max()) <= 1e-5
        ours, theirs = found.topk(100).indices, dense.topk(100).indices
        # Where the lists differ, the scores tie within rounding.
        assert float((dense.gather(1, ours) - dense.gather(1, theirs)).abs().max()) <= 1e-5
        assert float((ours == theirs).double().mean()) > 0.99


@pytest.mark.parametrize("scale", [0.0, 3.0, {"season": 2.0, "device": 0.5}])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_commutes(scale: float | dict[str, float], sampler: str) -> None:
    denoiser, rows, schedule = network(40, 4, sizes=SIZES), some_rows(40), schedule_of(5, 1e-5)
    cond = conditions([0.1, 0.4, 0.6, 0.9], [0, 1, 2, 1], [True, True, False, True])
    collapsed, levels, noise = collapse(denoiser), evenly(5), PhiloxNoise(5, KEY)

    def lean(denoise: Denoiser) -> Denoiser:
        return guided(denoise, tuple(SIZES), scale)

    with torch.no_grad():
        dense = SAMPLERS[sampler](lean(denoiser), rows.dense(), levels, schedule, cond=cond, noise=noise)
        projected = project_exactly(denoiser, noise, 40)
        u = collapsed.lift(rows)
        u = SAMPLERS[sampler](lean(collapsed.inner), u, levels[:-1], schedule, cond=cond, noise=projected)
        found = lean(collapsed.last)(u, torch.full((4,), int(levels[-2])), cond)
    torch.testing.assert_close(found, dense, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("width", "groups"), [(40, 4), (5, 2)])
def test_the_factor_of_the_covariance(width: int, groups: int) -> None:
    denoiser = network(width, groups)
    with torch.no_grad():
        denoiser.lift_weight[:, 3] = 0  # a dead unit
    collapsed = collapse(denoiser)
    w = denoiser.ends()[0].detach().t()
    torch.testing.assert_close(collapsed.F @ collapsed.F.t(), w @ w.t(), rtol=0, atol=1e-10)


def test_drawn_noise_has_the_covariance_of_the_lifted() -> None:
    n, denoiser = 20_000, network(5, 2, token=4)
    z = collapse(denoiser).noise(PhiloxNoise(1, torch.arange(n)))(3, torch.empty(n, 8, dtype=torch.float64))
    w = denoiser.ends()[0].detach().t()
    covariance = w @ w.t()
    spread = covariance.diagonal()
    error = ((torch.outer(spread, spread) + covariance**2) / n).sqrt()
    assert ((torch.cov(z.t()) - covariance).abs() <= 5 * error).all()
    assert (z.mean(0).abs() <= 5 * (spread / n).sqrt()).all()


@pytest.mark.parametrize("groups", [1, 4, 40])
def test_the_ends_are_the_matrices_of_lift_and_head(groups: int) -> None:
    denoiser, rows = network(40, groups), some_rows(40)
    wt, v, b = denoiser.ends()
    assert wt.shape == v.shape == (40, groups * 8)
    torch.testing.assert_close(denoiser.lift(rows), rows.dense() @ wt, rtol=0, atol=1e-12)
    torch.testing.assert_close(denoiser.lift(rows.dense()), rows.dense() @ wt, rtol=0, atol=1e-12)
    h = torch.randn(3, groups * 8, dtype=torch.float64)
    torch.testing.assert_close(denoiser.head(h), h @ v.t() + b, rtol=0, atol=1e-12)
    empty = SparseRows(torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0), 40)
    assert torch.equal(denoiser.lift(empty), torch.zeros(3, groups * 8, dtype=torch.float64))


def test_a_group_without_items_is_a_token_all_the_same() -> None:
    denoiser = TransformerDenoiser(torch.tensor([0, 3, 3]), 4, 1, 1)
    rows = SparseRows(torch.tensor([0, 1]), torch.tensor([1]), torch.ones(1), 3)
    assert denoiser.lift(rows).shape == (1, 16)
    assert denoiser.lift(rows.dense()).shape == (1, 16)
    assert denoiser(rows, torch.tensor([1])).shape == (1, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_head_may_score_some_items_alone(dtype: torch.dtype) -> None:
    denoiser = network(40, 4, dtype=dtype)
    collapsed = collapse(denoiser)
    u = denoiser.lift(some_rows(40, dtype))
    whole = collapsed.last(u, T_EACH)
    some = torch.tensor([7, 0, 39, 7])
    torch.testing.assert_close(collapsed.last(u, T_EACH, items=some), whole[:, some])
    each = torch.tensor([[0, 1], [5, 5], [39, 2], [8, 3]])
    torch.testing.assert_close(collapsed.last(u, T_EACH, items=each), whole.gather(1, each))
    one_group = (denoiser.groups == 2).nonzero().squeeze(1)
    torch.testing.assert_close(collapsed.last(u, T_EACH, items=one_group), whole[:, one_group])


def test_the_level_changes_the_answer_once_it_is_trained() -> None:
    denoiser, rows = network(40, 4), some_rows(40)
    early, late = (denoiser(rows, torch.full((4,), t)) for t in (1, 4))
    assert ((early - late).abs().amax(1) > 1e-3).all()
    mixed = denoiser(rows, torch.tensor([1, 4, 1, 4]))
    torch.testing.assert_close(mixed[::2], early[::2])
    torch.testing.assert_close(mixed[1::2], late[1::2])


def test_a_new_network_hands_its_tokens_on() -> None:
    """All gates are shut: the answer is the head of the normed tokens, whatever the level."""
    denoiser = TransformerDenoiser(torch.tensor([0, 1, 1, 0, 1]), 8, 3, 2, generator=torch.Generator().manual_seed(0))
    rows = some_rows(5, torch.float32)
    tokens = denoiser.lift(rows).view(4, 2, 8) + denoiser.place
    normed = nn.functional.layer_norm(tokens, (8,)).flatten(1)
    torch.testing.assert_close(denoiser(rows, T_EACH), denoiser.head(normed))


@pytest.mark.parametrize("condition_width", [6, 8])
def test_conditions_change_the_answer_and_the_null_is_absence(condition_width: int) -> None:
    denoiser, rows = network(40, 4, sizes=SIZES, condition_width=condition_width), some_rows(40)
    known = conditions([0.1] * 4, [0] * 4, [True] * 4)
    answer = denoiser(rows, T_EACH, known)
    for other in (conditions([0.6] * 4, [0] * 4, [True] * 4), conditions([0.1] * 4, [2] * 4, [True] * 4)):
        assert ((answer - denoiser(rows, T_EACH, other)).abs().amax(1) > 1e-4).all()
    nothing = denoiser(rows, T_EACH)
    absent = denoiser(rows, T_EACH, known.without(SIZES))
    torch.testing.assert_close(absent, nothing, rtol=0, atol=0)
    assert ((answer - nothing).abs().amax(1) > 1e-4).all()
    some = denoiser(rows, T_EACH, conditions([0.1] * 4, [0] * 4, [True, False, True, False]))
    torch.testing.assert_close(some[::2], answer[::2])
    torch.testing.assert_close(some[1::2], nothing[1::2])


def test_a_network_without_a_conditioner_reads_no_condition() -> None:
    denoiser, rows = network(40, 4), some_rows(40)
    known = conditions([0.1] * 4, [0] * 4, [True] * 4)
    assert torch.equal(denoiser(rows, T_EACH, known), denoiser(rows, T_EACH))


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    denoiser, rows = network(40, 4, sizes=SIZES), some_rows(40)
    cond = conditions([0.1, 0.4, 0.6, 0.9], [0, 1, 2, 1], [True, True, False, True])
    together = denoiser(rows, T_EACH, cond)
    for row in range(4):
        one = torch.tensor([row])
        alone = denoiser(rows.select(one), T_EACH[one], cond.select(one))
        torch.testing.assert_close(alone, together[one], rtol=0, atol=1e-12)


def test_items_of_other_groups_reach_an_item_through_attention_alone() -> None:
    shut, open_ = network(40, 4, layers=0), network(40, 4, layers=1)
    for denoiser, reaches in ((shut, False), (open_, True)):
        x = some_rows(40).dense()
        outside = denoiser.groups != 0
        changed = x + outside * 1.0
        moved = (denoiser(changed, T_EACH) - denoiser(x, T_EACH))[:, ~outside]
        assert bool((moved.abs() > 1e-3).any()) == reaches


def test_a_state_dict_restores_groups_and_answers() -> None:
    denoiser, rows = network(40, 4, sizes=SIZES), some_rows(40)
    generator = torch.Generator().manual_seed(9)
    other = TransformerDenoiser(torch.arange(40) % 4, 8, 2, 2, conditioner=Conditioner(SIZES, 6), generator=generator)
    other.double().load_state_dict(denoiser.state_dict())
    assert torch.equal(other.groups, denoiser.groups)
    assert torch.equal(other(rows, T_EACH), denoiser(rows, T_EACH))
    assert torch.equal(other(rows.dense(), T_EACH), denoiser(rows.dense(), T_EACH))


def test_a_generator_gives_the_weights() -> None:
    of = torch.arange(12) % 3
    states = [
        TransformerDenoiser(of, 8, 1, 2, generator=torch.Generator().manual_seed(seed)).state_dict()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["lift_weight"], states[2]["lift_weight"])


def test_every_weight_learns() -> None:
    denoiser, rows = network(40, 4, sizes=SIZES), some_rows(40)
    cond = conditions([0.1, 0.4, 0.6, 0.9], [0, 1, 2, 1], [True, True, False, True])
    target = rows.dense()
    (denoiser(target, T_EACH, cond) - target).square().mean().backward()
    for name, weight in denoiser.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.any(), name


def test_a_few_steps_fit_a_few_rows() -> None:
    rows = some_rows(40, torch.float32).dense()
    denoiser = TransformerDenoiser(torch.arange(40) % 4, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = (denoiser(rows, T_EACH) - rows).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05 * float(rows.square().mean())


def test_what_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="heads must divide the width of a token, 8"):
        TransformerDenoiser(torch.tensor([0, 1]), 8, 1, 3)
    for groups in (torch.tensor([0, -1]), torch.zeros(0, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64)):
        with pytest.raises(InvalidInput, match="groups must hold a number"):
            TransformerDenoiser(groups, 8, 1, 2)


def steered_plainly(block: TransformerBlock, width: int) -> nn.TransformerEncoderLayer:
    """Torch's own pre-norm layer with the block's weights; the block itself with open gates and no shift or scale."""
    layer = nn.TransformerEncoderLayer(
        width, block.heads, 4 * width, dropout=0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    with torch.no_grad():
        block.steer.weight.zero_()
        block.steer.bias.zero_().view(6, width)[[2, 5]] = 1
    layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias = block.qkv.weight, block.qkv.bias
    layer.self_attn.out_proj, layer.linear1, layer.linear2 = block.mix, block.widen, block.narrow  # type: ignore[assignment]
    return layer


def test_a_block_with_open_gates_is_the_ordinary_pre_norm_layer() -> None:
    block = TransformerBlock(12, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    awake(block)
    layer = steered_plainly(block, 12)
    x, steering = torch.randn(2, 4, 12, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(block(x, steering), layer(x))
    present = torch.tensor([[True, True, False, False], [True, True, True, True]])
    torch.testing.assert_close(
        block(x, steering, present.unsqueeze(1))[present], layer(x, src_key_padding_mask=~present)[present]
    )
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    torch.testing.assert_close(block(x, steering, causal.unsqueeze(0)), layer(x, src_mask=~causal))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hidden_tokens_change_nothing_and_hiding_all_is_finite(dtype: torch.dtype) -> None:
    block = TransformerBlock(8, 2, 5, generator=torch.Generator().manual_seed(0))
    awake(block)
    block.to(dtype)
    x, steering = torch.randn(2, 3, 8, dtype=dtype), torch.randn(2, 5, dtype=dtype)
    present = torch.tensor([[True, True, False], [False, False, False]])
    answer = block(x, steering, present.unsqueeze(1))
    assert answer.isfinite().all()
    other = x + (~present).unsqueeze(2) * torch.randn(2, 3, 8, dtype=dtype)
    torch.testing.assert_close(block(other, steering, present.unsqueeze(1))[present], answer[present])
