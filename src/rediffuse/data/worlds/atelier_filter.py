"""What the events of a user say of their latents: sequential Monte Carlo from the prior to the posterior.

P guesses are drawn from the laws of the population. The likelihood of the views, visits and tier is then let in by
degrees, exponent 0 .. 1, each step as long as keeps half of the guesses alive; after each the guesses are resampled and
moved by Metropolis steps that leave the tempered posterior as it is:

    loyalty block   another brand for one favourite (proposed as often as it was viewed); a step of the bonus
    taste block     category bonuses, budget, activity: a step towards a draw from the cloud's own normal fit
    mixture block   a step of one gamma variable, or an exchange of two, of the first or the fresh mixture

Carts and purchases say little beside the views: they enter last, as importance weights of the posterior draws.
Reference: Del Moral, Doucet and Jasra 2006, "Sequential Monte Carlo samplers", sections 2.3 and 3.3.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from rediffuse.data.worlds.atelier_latents import Cloud, Laws, shares
from rediffuse.data.worlds.atelier_seen import Seen, standing
from rediffuse.data.worlds.atelier_users import (
    BUDGET_SPREAD,
    FAVOURITE_BRANDS,
    LOYALTY_SHAPE,
)

ALIVE = 0.5
"""Effective part of the guesses that a tempering step keeps."""
BRAND_TRIES, TASTE_TRIES, MIXTURE_TRIES = 8, 2, 8
STEPS = (0.7, 3.0, 8.0)
"""Standard deviations of the steps of a log gamma variable; the last one crosses its whole range."""


@dataclass(frozen=True)
class Posterior:
    """Weighted draws of a user's latents given their events."""

    cloud: Cloud
    weight: Tensor
    """(P,) float32, sums to 1."""

    @property
    def effective(self) -> float:
        """Effective sample size of the weights, 1 .. P."""
        return float(1.0 / self.weight.double().square().sum())


def infer(laws: Laws, seen: Seen, particles: int, rng: Generator) -> Posterior:
    """Draw from the posterior of one user. Limits: some 10 steps, each of 4 P I K days multiplications."""
    state = _Filter(laws, seen, prior(laws, seen.age_band, particles, rng), rng)
    exponent = 0.0
    while exponent < 1.0:
        exponent = state.temper(exponent)
        state.move(exponent)
    state.move(1.0)
    log = funnel(laws, state.cloud, seen)
    return Posterior(state.cloud, torch.softmax(log.double(), 0).float())


def prior(laws: Laws, age_band: int, n: int, rng: Generator) -> Cloud:
    """Guesses from the laws of the population."""
    config, shape = laws.config, laws.concentration[age_band].numpy().astype(np.float64)
    # log G(a) = log G(a + 1) + log(U) / a does not underflow.
    gamma = np.log(rng.standard_gamma(shape + 1.0, (n, 2, len(shape))))
    mixture = torch.from_numpy(gamma + np.log1p(-rng.random(gamma.shape)) / shape).float()
    liked = torch.mm(shares(mixture)[:, 0], laws.style_brand).numpy()
    favourite = np.argsort(-(liked + rng.gumbel(size=liked.shape)), axis=1)[:, :FAVOURITE_BRANDS].copy()
    loyalty = np.log(config.loyalty * rng.gamma(LOYALTY_SHAPE, 1.0 / LOYALTY_SHAPE, n))
    taste = torch.from_numpy(rng.normal(size=(n, len(laws.terms) + 1))).float() * taste_spread(laws)
    return Cloud(mixture, torch.from_numpy(favourite), torch.from_numpy(loyalty).float(), taste)


def taste_spread(laws: Laws) -> Tensor:
    """(categories + 2,) standard deviations of `Cloud.taste` in the population."""
    n_categories = len(laws.terms) - 1
    return torch.tensor([laws.config.category_spread] * n_categories + [BUDGET_SPREAD, laws.config.activity_spread])


class _Filter:
    """The cloud on its way. The log-likelihood of a guess is `views` + `liked` + `apart`:

    views   sum over the views of log(sum_k m_k f_k / sum_k m_k S_k)
    liked   of the loyalty in the views of favourite brands
    apart   of the other terms of the viewed items, the visits and the tier
    """

    def __init__(self, laws: Laws, seen: Seen, cloud: Cloud, rng: Generator) -> None:
        self.laws, self.seen, self.cloud, self.rng = laws, seen, cloud, rng
        self.table, self.gone = laws.by_style(seen.days), laws.gone(seen.time_us)
        self.density = laws.densities[:, seen.item]
        self.told = laws.terms[:, seen.item].sum(dim=1)
        n_brands = laws.style_brand.shape[1]
        self.viewed = torch.bincount(laws.brand[seen.item], minlength=n_brands).float()
        eager = self.viewed.numpy().astype(np.float64) + 1.0
        self.eager = (eager / eager.sum()).cumsum()
        self.log_eager = torch.from_numpy(np.log(eager)).float()
        self.by_brand = torch.argsort(laws.brand, stable=True)
        self.per_brand = torch.bincount(laws.brand, minlength=n_brands).tolist()
        self.spread, self.shape = taste_spread(laws), laws.concentration[seen.age_band]
        self.sums = laws.style_sums(laws.reach(cloud), self.table)
        self.views = self._views(cloud.shares(), self.sums)
        self.liked, self.apart = self._liked(cloud), self._apart(cloud.taste)

    def temper(self, exponent: float) -> float:
        """Raise the exponent as far as the guesses bear it and resample. Returns: the new exponent."""
        like = (self.views + self.liked + self.apart).numpy().astype(np.float64)
        like -= like.max()
        low, high = 0.0, 1.0 - exponent
        if _alive(high * like) < ALIVE:
            for _ in range(20):
                middle = (low + high) / 2
                low, high = (middle, high) if _alive(middle * like) >= ALIVE else (low, middle)
            high = max(low, 1e-6)
        weight = np.exp(high * like).cumsum()
        point = (np.arange(len(like)) + self.rng.random()) / len(like) * weight[-1]
        rows = torch.from_numpy(np.minimum(np.searchsorted(weight, point, side="right"), len(like) - 1))
        self.cloud = self.cloud.select(rows)
        self.views, self.liked, self.apart = self.views[rows], self.liked[rows], self.apart[rows]
        return min(exponent + high, 1.0)

    def move(self, exponent: float) -> None:
        """Move every guess, leaving the posterior tempered by `exponent` as it is."""
        self._move_loyalty(exponent)
        self.sums = self.laws.style_sums(self.laws.reach(self.cloud), self.table)
        for _ in range(TASTE_TRIES):
            self._move_taste(exponent)
        self._move_mixture(exponent)

    def _move_loyalty(self, exponent: float) -> None:
        """Another favourite brand or a step of the bonus, a few times: with sums by brand each try is cheap."""
        cloud, n, config = self.cloud, len(self.cloud), self.laws.config
        mixtures = cloud.shares()
        chosen = torch.softmax(torch.mm(mixtures[:, 0], self.laws.style_brand), dim=1)
        brands = self._brand_totals(mixtures)
        total, own = brands.sum(dim=1), torch.log(self._own(mixtures)).sum(dim=1)
        law = _favourite_law(chosen, cloud.favourite) + _loyalty_law(cloud.loyalty, config.loyalty)
        for attempt in range(BRAND_TRIES):
            if attempt % 4 == 3:
                new, lean = replace(cloud, loyalty=cloud.loyalty + 0.6 * self._normal(n)), torch.zeros(n)
            else:
                brand = torch.from_numpy(np.searchsorted(self.eager, self.rng.random(n)))[:, None]
                place = torch.from_numpy(self.rng.integers(0, FAVOURITE_BRANDS, (n, 1)))
                new = replace(cloud, favourite=cloud.favourite.scatter(1, place, brand))
                lean = self.log_eager[cloud.favourite.gather(1, place)] - self.log_eager[brand]
                lean = lean.masked_fill((cloud.favourite == brand).any(dim=1, keepdim=True), -math.inf)[:, 0]
            new_law = _favourite_law(chosen, new.favourite) + _loyalty_law(new.loyalty, config.loyalty)
            extra = brands.gather(1, new.favourite[:, :, None].expand(-1, -1, total.shape[1])).sum(dim=1)
            views = own - torch.log(total + torch.expm1(new.loyalty.exp())[:, None] * extra).sum(dim=1)
            liked = self._liked(new)
            gain = exponent * (views + liked - self.views - self.liked)
            kept = self._accepted(gain + new_law - law + lean)
            cloud = replace(
                cloud,
                favourite=torch.where(kept[:, None], new.favourite, cloud.favourite),
                loyalty=torch.where(kept, new.loyalty, cloud.loyalty),
            )
            self.views, self.liked = torch.where(kept, views, self.views), torch.where(kept, liked, self.liked)
            law = torch.where(kept, new_law, law)
        self.cloud = cloud

    def _move_taste(self, exponent: float) -> None:
        """Y' = mu + rho (y - mu) + sqrt(1 - rho^2) sd z: reversible for the cloud's normal fit N(mu, sd^2)."""
        cloud, rho = self.cloud, 0.5
        middle, sd = cloud.taste.mean(dim=0), cloud.taste.std(dim=0).maximum(0.02 * self.spread)
        fresh = self._normal(*cloud.taste.shape) * sd * math.sqrt(1.0 - rho**2)
        new = replace(cloud, taste=middle + rho * (cloud.taste - middle) + fresh)

        def against_fit(taste: Tensor) -> Tensor:
            return 0.5 * (((taste - middle) / sd).square() - (taste / self.spread).square()).sum(dim=1)

        sums = self.laws.style_sums(self.laws.reach(new), self.table)
        views, apart = self._views(cloud.shares(), sums), self._apart(new.taste)
        gain = exponent * (views + apart - self.views - self.apart)
        kept = self._accepted(gain + against_fit(new.taste) - against_fit(cloud.taste))
        self.cloud = replace(cloud, taste=torch.where(kept[:, None], new.taste, cloud.taste))
        self.views, self.apart = torch.where(kept, views, self.views), torch.where(kept, apart, self.apart)
        self.sums = torch.where(kept[:, None, None], sums, self.sums)

    def _move_mixture(self, exponent: float) -> None:
        """A step of one log gamma variable or an exchange of two, a few times."""
        mixture, n = self.cloud.mixture, len(self.cloud)
        law, row = self._mixture_law(mixture, self.cloud.shares()), torch.arange(n)
        for attempt in range(MIXTURE_TRIES):
            part = torch.from_numpy(self.rng.integers(0, 2, n))
            one, other = torch.from_numpy(self.rng.integers(0, len(self.shape), (2, n)))
            new = mixture.clone()
            if attempt % 4 == 3:
                new[row, part, one], new[row, part, other] = mixture[row, part, other], mixture[row, part, one]
            else:
                new[row, part, one] += self._normal(n) * STEPS[attempt % 4]
            blend = shares(new)
            new_law, views = self._mixture_law(new, blend), self._views(blend, self.sums)
            kept = self._accepted(exponent * (views - self.views) + new_law - law)
            mixture = torch.where(kept[:, None, None], new, mixture)
            self.views, law = torch.where(kept, views, self.views), torch.where(kept, new_law, law)
        self.cloud = replace(self.cloud, mixture=mixture)

    def _mixture_law(self, mixture: Tensor, blend: Tensor) -> Tensor:
        """(P,) log-density of log gamma variables x, a x - e^x, and of the favourites that the first mixture suggests."""
        chosen = torch.softmax(torch.mm(blend[:, 0], self.laws.style_brand), dim=1)
        return (self.shape * mixture - mixture.exp()).sum(dim=(1, 2)) + _favourite_law(chosen, self.cloud.favourite)

    def _views(self, mixtures: Tensor, sums: Tensor) -> Tensor:
        totals = (torch.bmm(mixtures, sums)[:, :, self.seen.day] * self.gone).sum(dim=1)
        return torch.log(self._own(mixtures) / totals).sum(dim=1)

    def _own(self, mixtures: Tensor) -> Tensor:
        """(P, N) sum_k m_k f_k of every viewed item."""
        first, fresh = (torch.mm(mixtures[:, part], self.density) for part in (0, 1))
        return first * self.gone[0] + fresh * self.gone[1]

    def _brand_totals(self, mixtures: Tensor) -> Tensor:
        """(P, brands, N) sum of w_i over the items of each brand at every view, loyalty left out."""
        plain, shop = self.laws.plain(self.cloud.taste), self.laws.shop[self.seen.days]
        styled = torch.mm(mixtures.flatten(0, 1), self.laws.densities).view(len(plain), 2, -1).mul_(plain[:, None])
        parts = styled.flatten(0, 1)[:, self.by_brand].split(self.per_brand, dim=1)
        shops = shop[:, self.by_brand].split(self.per_brand, dim=1)
        sums = torch.stack([torch.mm(w, s.T) for w, s in zip(parts, shops, strict=True)], dim=1)
        by_day = sums.view(len(plain), 2, len(self.per_brand), -1)[..., self.seen.day]
        return by_day[:, 0] * self.gone[0] + by_day[:, 1] * self.gone[1]

    def _liked(self, cloud: Cloud) -> Tensor:
        return cloud.loyalty.exp() * self.viewed[cloud.favourite].sum(dim=1)

    def _apart(self, taste: Tensor) -> Tensor:
        return torch.mv(taste[:, :-1], self.told) + standing(self.laws.config, taste, self.seen)

    def _normal(self, *shape: int) -> Tensor:
        return torch.from_numpy(self.rng.standard_normal(shape, dtype=np.float32))

    def _accepted(self, log_ratio: Tensor) -> Tensor:
        return torch.from_numpy(np.log1p(-self.rng.random(len(log_ratio)))) < log_ratio


def funnel(laws: Laws, cloud: Cloud, seen: Seen) -> Tensor:
    """(P,) log-likelihood of the carts and purchases, given the views."""
    config, mixtures = laws.config, cloud.shares()
    reach, gone, shop = laws.reach(cloud), laws.gone(seen.time_us), laws.shop[seen.days]
    first, fresh = (torch.mm(mixtures[:, part], laws.densities).mul_(reach) for part in (0, 1))
    total = sum(torch.mm(w, shop.T)[:, seen.day] * gone[part] for part, w in enumerate((first, fresh)))
    squares = ((first * first, gone[0] ** 2), (first * fresh, 2.0 * gone[0] * gone[1]), (fresh * fresh, gone[1] ** 2))
    squared = sum(torch.mm(w, shop.T.square())[:, seen.day] * factor for w, factor in squares)
    own = (first[:, seen.item] * gone[0] + fresh[:, seen.item] * gone[1]) * shop[seen.day, seen.item]
    fit = config.fit * torch.log(own * total / squared)
    out = torch.zeros(len(cloud))
    for odds, done, of in (
        (config.cart, seen.carts, torch.ones_like(seen.carts)),
        (config.purchase, seen.purchases, seen.carts),
    ):
        log_odds = odds + fit
        out += (done * log_odds - of * torch.nn.functional.softplus(log_odds)).sum(dim=1)
    return out


def _favourite_law(chosen: Tensor, favourite: Tensor) -> Tensor:
    """Log-probability of brands drawn one after the other. Args: chosen: (P, brands), rows sum to 1. Returns: (P,)."""
    of = chosen.gather(1, favourite)
    before = of.cumsum(dim=1) - of
    return torch.log(of / (1.0 - before).clamp_min(1e-6)).sum(dim=1)


def _loyalty_law(log_bonus: Tensor, mean: float) -> Tensor:
    """Log-density of the logarithm of a gamma variable of that mean. Args: (P,). Returns: (P,)."""
    return LOYALTY_SHAPE * (log_bonus - log_bonus.exp() / mean)


def _alive(log_weight: NDArray[np.float64]) -> float:
    """Effective part of a sample with these log weights, 0..1."""
    weight = np.exp(log_weight - log_weight.max())
    return float(weight.sum() ** 2 / (weight**2).sum() / len(weight))
