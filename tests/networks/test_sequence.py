"""Histories as sequences: where the newest stands, and what may read what."""

import torch

from rediffuse.networks.sequence import SequenceEncoder, final, padded
from rediffuse.types import Ragged


def _encoder(*, causal: bool, dropout: float = 0.0) -> SequenceEncoder:
    return SequenceEncoder(
        8, 2, 2, 5, causal=causal, dropout=dropout, generator=torch.Generator().manual_seed(0)
    ).double()


def test_the_newest_items_stand_oldest_first() -> None:
    items = padded(Ragged.of([[1, 2, 3, 4], [], [7]]), 3)
    assert items.tolist() == [[2, 3, 4], [-1, -1, -1], [7, -1, -1]]
    assert padded(Ragged.of([[1], [2, 3]]), 9).tolist() == [[1, -1], [2, 3]]
    assert padded(Ragged.of([[]]), 4).tolist() == [[-1]]
    assert padded(Ragged.of([]), 4).shape == (0, 1)


def test_the_final_state_is_that_of_the_newest_event() -> None:
    states = torch.arange(12.0).view(2, 3, 2)
    there = torch.tensor([[True, True, False], [False, False, False]])
    assert final(states, there).tolist() == [[2.0, 3.0], [0.0, 0.0]]


def test_padding_changes_nothing() -> None:
    tokens = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for causal in (True, False):
        encoder = _encoder(causal=causal)
        there = torch.tensor([[True] * 3 + [False] * 2] * 3)
        whole = encoder(tokens, there)[:, :3]
        torch.testing.assert_close(whole, encoder(tokens[:, :3], there[:, :3]), rtol=0, atol=1e-12)
        other = torch.where(there.unsqueeze(2), tokens, 7.0)
        torch.testing.assert_close(encoder(other, there)[:, :3], whole, rtol=0, atol=1e-12)


def test_a_causal_encoder_does_not_see_what_comes() -> None:
    tokens = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    there = torch.ones(1, 5, dtype=torch.bool)
    changed = tokens.clone()
    changed[:, 3:] = 1.0
    for causal in (True, False):
        encoder = _encoder(causal=causal)
        same = torch.allclose(encoder(tokens, there)[:, :3], encoder(changed, there)[:, :3], rtol=0, atol=1e-12)
        assert same is causal


def test_dropout_needs_a_generator_and_follows_it() -> None:
    encoder, there = _encoder(causal=True, dropout=0.5), torch.ones(1, 5, dtype=torch.bool)
    tokens = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, two = (encoder(tokens, there, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, encoder(tokens, there))
    assert torch.equal(encoder(tokens, there), encoder(tokens, there))


def test_an_empty_history_has_a_finite_state_and_gradient() -> None:
    encoder = _encoder(causal=True)
    tokens = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    there = torch.tensor([[True, True, False], [False, False, False]])
    final(encoder(tokens, there), there).sum().backward()
    assert tokens.grad is not None
    assert bool(torch.isfinite(tokens.grad).all())
    assert bool((tokens.grad[1] == 0).all())
