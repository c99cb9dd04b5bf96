"""What one user may be like, as a cloud of P guesses, and what each guess makes of the items.

Within a user the weight of item i at time t is

    w_i = sum_k m_k(t) f_k(i) r_i shop_i(day),   r_i = exp(loyalty + use + p_i b / width^2)
    m(t) = (1 - drift s) first + drift s fresh,   s the part of the two years gone by

so the sums over the catalog that a likelihood needs are linear in the mixtures:
    sum_i w_i = sum_k m_k(t) S_k(day),   S_k(day) = sum_i f_k(i) r_i shop_i(day)        `Laws.style_sums`
"""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.worlds.atelier_config import DAY_US, END_US, START_US, AtelierConfig
from rediffuse.data.worlds.atelier_events import passed_by
from rediffuse.data.worlds.atelier_items import CATEGORIES
from rediffuse.data.worlds.atelier_truth import Utility, week_of
from rediffuse.data.worlds.atelier_users import MIXTURE_FLOOR


@dataclass(frozen=True)
class Cloud:
    """P guesses at the latents of one user."""

    mixture: Tensor
    """(P, 2, K) logarithms of the gamma variables whose shares are the mixtures, first and fresh."""
    favourite: Tensor
    """(P, 3) int64 brands, in the order drawn."""
    loyalty: Tensor
    """(P,) logarithm of the bonus."""
    taste: Tensor
    """(P, categories + 2): bonus of each category, log budget, log activity."""

    def __len__(self) -> int:
        """Number of guesses, P."""
        return len(self.loyalty)

    def shares(self) -> Tensor:
        """(P, 2, K) mixtures first and fresh, rows sum to 1."""
        return shares(self.mixture)

    def select(self, rows: Tensor) -> Self:
        """The given guesses. Args: rows: (p,) int64."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))


def true_cloud(utility: Utility, user: int) -> Cloud:
    """The latents of a user as a cloud of one."""
    users, config = utility.users, utility.config
    first = users.style_first[user]
    # Without drift the fresh part was exchanged for nothing.
    fresh = (users.style_last[user] - (1.0 - config.drift) * first) / config.drift if config.drift else first
    activity = np.log(users.visits[user] / config.sessions) + config.activity_spread**2 / 2
    taste = np.concatenate((users.category[user], [users.log_budget[user], activity]))
    return Cloud(
        torch.from_numpy(np.log(np.maximum(np.stack((first, fresh)), 1e-30))).float()[None],
        torch.from_numpy(users.favourite[user])[None],
        torch.from_numpy(np.log(users.loyalty[[user]])).float(),
        torch.from_numpy(taste).float()[None],
    )


def shares(mixture: Tensor) -> Tensor:
    """Gamma variables, as logarithms -> shares; the floor is that of the draw. Args: (.., K). Returns: (.., K)."""
    raw = mixture.exp() + MIXTURE_FLOOR
    return raw / raw.sum(dim=-1, keepdim=True)


@dataclass(frozen=True)
class Laws:
    """The world as tensors, float32: all that holds for everybody."""

    config: AtelierConfig
    densities: Tensor
    """(K, I) f."""
    terms: Tensor
    """(categories + 1, I): which category, and p / width^2."""
    brand: Tensor
    """(I,) int64."""
    style_brand: Tensor
    """(K, brands) log weights of favourites."""
    concentration: Tensor
    """(age bands, K) of the mixtures."""
    shop: Tensor
    """(days + 1, I) exp(appeal + season + novelty + trend) and the budget term without its user; 0 before the launch."""

    @classmethod
    def of(cls, utility: Utility, trend: NDArray[np.float64], known_until_us: int) -> Self:
        """Args: trend: (weeks, I).   known_until_us: weeks that begin later keep the trend of the last one before."""
        config, days = utility.config, np.arange((END_US - START_US) // DAY_US + 1)
        last = min(int(week_of(np.array(known_until_us))), len(trend) - 1)
        shop = utility.on_day(days) * np.exp(trend[np.minimum(days // 7, last)])
        category = np.arange(len(CATEGORIES))[:, None] == utility.items.category
        terms = np.concatenate((category, utility.relative_price[None] / config.budget_width**2))
        return cls(
            config,
            _tensor(utility.densities),
            _tensor(terms),
            torch.from_numpy(utility.items.brand),
            _tensor(utility.styles.brand),
            _tensor(utility.users.concentration),
            _tensor(shop),
        )

    def reach(self, cloud: Cloud) -> Tensor:
        """(P, I) r: what user and item have in common beyond the style."""
        return self.plain(cloud.taste) * self.lift(cloud)[:, self.brand]

    def plain(self, taste: Tensor) -> Tensor:
        """(P, I) r without loyalty. Args: taste: (P, categories + 2)."""
        return torch.mm(taste[:, :-1], self.terms).exp_()

    def lift(self, cloud: Cloud) -> Tensor:
        """(P, brands) factor of loyalty: e^l for favourites, else 1."""
        out = torch.ones(len(cloud), self.style_brand.shape[1])
        return out.scatter_(1, cloud.favourite, cloud.loyalty.exp().exp()[:, None].expand(-1, cloud.favourite.shape[1]))

    def style_sums(self, reach: Tensor, table: Tensor) -> Tensor:
        """(P, K, days) S. Args: reach: (P, I).   table: of `by_style`."""
        return torch.mm(reach, table).view(len(reach), len(self.densities), table.shape[1] // len(self.densities))

    def by_style(self, days: Tensor) -> Tensor:
        """(I, K days) f_k(i) shop_i(day): the table for `style_sums`."""
        return (self.densities[:, None] * self.shop[days]).flatten(0, 1).T.contiguous()

    def gone(self, time_us: Tensor) -> Tensor:
        """(2, n) weights of first and fresh: 1 - drift s, drift s. Args: time_us: (n,)."""
        fresh = self.config.drift * ((time_us - START_US).to(torch.float64) / (END_US - START_US)).float()
        return torch.stack((1.0 - fresh, fresh))


@dataclass(frozen=True)
class Window:
    """A stretch of time that is asked about."""

    days: Tensor
    """(D,) int64, days that it touches."""
    share: Tensor
    """(D,) parts of its visits that fall on each day, sums to 1."""
    visits: float
    """Part of the visits of two full years that fall into it."""
    middle_us: Tensor
    """(D,) int64 noon of the days."""

    @classmethod
    def of(cls, start_us: int, end_us: int) -> Self:
        """From start to end, the end not included."""
        days = np.arange((start_us - START_US) // DAY_US, -((START_US - end_us) // DAY_US))
        edges = np.clip(START_US + np.append(days, days[-1] + 1) * DAY_US, start_us, end_us)
        visits = np.diff(passed_by(edges))
        noon = START_US + days * DAY_US + DAY_US // 2
        total = float(visits.sum())
        return cls(torch.from_numpy(days), _tensor(visits / total), total, torch.from_numpy(noon))


def chance(laws: Laws, cloud: Cloud, window: Window, span: float) -> Tensor:
    """Probability, for every guess, that the user has an event on an item within the window.

        p_i = mean over the window's visits of w_i / sum_j w_j
        1 - exp(-visits h(p_i)),   h(p) = 1 - (1 - p) exp(-(v - 1) p)

    h is the probability that a visit of 1 + Poisson(v - 1) views holds the item; visits are Poisson.

    Args: span: part of the visits of two full years that fall after the user joined. Returns: (P, I).
    """
    config, mixtures = laws.config, cloud.shares()
    reach, gone = laws.reach(cloud), laws.gone(window.middle_us)
    styled = [torch.mm(mixtures[:, part], laws.densities).mul_(reach) for part in (0, 1)]
    shop = laws.shop[window.days]
    total = sum(torch.mm(styled[part], shop.T) * gone[part] for part in (0, 1))
    each = [torch.mm(window.share * gone[part] / total, shop) * styled[part] for part in (0, 1)]
    p = each[0] + each[1]
    visit = 1.0 - (1.0 - p) * torch.exp(-(config.views_per_session - 1.0) * p)
    visits = window.visits / span * expected_visits(config, cloud.taste[:, -1], span)
    return -torch.expm1(-visits[:, None] * visit)


def expected_visits(config: AtelierConfig, activity: Tensor, span: float) -> Tensor:
    """(P,) visits after joining, at least 1. Args: activity: (P,)."""
    return (config.sessions * span * torch.exp(activity - config.activity_spread**2 / 2)).clamp_min(1.0)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
