"""The known truth of Atelier: the probability of every item for a user at a time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rediffuse.data.worlds.atelier_config import DAY_US, DAYS, END_US, START_US, WEEKS, AtelierConfig
from rediffuse.data.worlds.atelier_items import CATEGORIES, SEASON_PEAK, ItemTable
from rediffuse.data.worlds.atelier_users import Styles, UserTable
from rediffuse.errors import InvalidInput, say

YEAR_DAYS = 365.25


@dataclass(frozen=True)
class Utility:
    """Every term of the utility but the trend, which feeds on the events themselves."""

    config: AtelierConfig
    items: ItemTable
    styles: Styles
    users: UserTable

    def weights(self, user: NDArray[np.int64], time_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """exp(style + loyalty + use + budget + appeal + season + novelty); 0 before the launch.

        Args: user, time_us: (n,). Returns: (n, I).
        """
        weights = _product(self.mixture(user, time_us), self.densities)
        who, place = np.unique(user, return_inverse=True)
        weights *= np.exp(_product(self._user_terms[who], self.item_terms))[place]
        weights *= self._days[(time_us - START_US) // DAY_US]
        return weights

    def mixture(self, user: NDArray[np.int64], time_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """Style mixtures: (1 - s) first + s last, with s the part of the two years gone by. Returns: (n, K)."""
        gone = ((time_us - START_US) / (END_US - START_US))[:, None]
        return (1.0 - gone) * self.users.style_first[user] + gone * self.users.style_last[user]

    @cached_property
    def densities(self) -> NDArray[np.float64]:
        """(K, I) style densities to the power of `taste`, each with mean 1 over the catalog."""
        log = self.config.taste * self.styles.log_density(self.items)
        density = np.exp(log - log.max(axis=1, keepdims=True))
        return density / density.mean(axis=1, keepdims=True)

    @cached_property
    def relative_price(self) -> NDArray[np.float64]:
        """(I,) log price against the middle of the category."""
        return np.log(self.items.price / np.array([c.price for c in CATEGORIES])[self.items.category])

    @cached_property
    def _user_terms(self) -> NDArray[np.float64]:
        """(U, brands + categories + 1): loyalty, use, and the part of the budget term that depends on the user."""
        users = self.users
        brand = np.zeros((len(users), self.config.brands))
        np.put_along_axis(brand, users.favourite, users.loyalty[:, None], axis=1)
        return np.concatenate((brand, users.category, users.log_budget[:, None] / self.config.budget_width**2), axis=1)

    @cached_property
    def item_terms(self) -> NDArray[np.float64]:
        """(brands + categories + 1, I): which brand, which category, and the price."""
        brand = np.arange(self.config.brands)[:, None] == self.items.brand
        category = np.arange(len(CATEGORIES))[:, None] == self.items.category
        return np.concatenate((brand, category, self.relative_price[None]), axis=0, dtype=np.float64)

    @cached_property
    def _days(self) -> NDArray[np.float64]:
        """(days + 1, I), a row of `on_day` for each day."""
        return self.on_day(np.arange(DAYS + 1))

    def on_day(self, day: NDArray[np.int64]) -> NDArray[np.float64]:
        """exp(appeal + budget + season + novelty), the budget without its user; 0 before the launch.

        Args: day: (n,) days since the start. Returns: (n, I).
        """
        config, items, day = self.config, self.items, day[:, None]
        peak = np.append(SEASON_PEAK, 0.0)[items.season]
        season = np.where(items.season < 4, np.cos(2 * np.pi * (day - peak) / YEAR_DAYS), 0.0)
        age = day - items.launch_day
        novelty = np.exp(-np.maximum(age, 0) / config.novelty_days)
        budget = -0.5 * (self.relative_price / config.budget_width) ** 2
        total = items.appeal + budget + config.season * season + config.novelty * novelty
        return np.where(age >= 0, np.exp(total), 0.0)


@dataclass(frozen=True)
class Truth:
    """The latents, and the probabilities from which the events were drawn."""

    utility: Utility
    trend: NDArray[np.float64]
    """(weeks, I) the trend term, from the views of earlier weeks."""

    def preference(self, user: NDArray[np.int64], time_us: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability that the next event of a user at a time is on each item; 0 for items not launched yet.

        Args: user: (n,) row in `users`.   time_us: (n,) UTC microseconds within the two years, their end included.
        Returns: (n, I), rows sum to 1.
        Raises: InvalidInput for a user that is none or a time outside.
        Limits: 8 n I bytes and about as many again; ask in blocks.
        """
        user, time_us = np.asarray(user, dtype=np.int64), np.asarray(time_us, dtype=np.int64)
        _check("user number", user, 0, len(self.utility.users) - 1)
        _check("time_us", time_us, START_US, END_US)
        weights = self.utility.weights(user, time_us) * np.exp(self.trend[week_of(time_us)])
        return weights / weights.sum(axis=1, keepdims=True)


def weeks_table(n_items: int) -> NDArray[np.float64]:
    """(weeks, I) zeros: the trend before anything was viewed."""
    return np.zeros((WEEKS, n_items))


def week_of(time_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Weeks since the start."""
    return (time_us - START_US) // (7 * DAY_US)


def trend_term(config: AtelierConfig, recent: NDArray[np.float64]) -> NDArray[np.float64]:
    """The trend term, trend log(1 + c / mean c), with c the fading count of views; nothing in the first week.

    Args: recent: (I,) the count c. Returns: (I,).
    """
    mean = recent.mean()
    return config.trend * np.log1p(recent / mean) if mean > 0 else np.zeros_like(recent)


def fit_of(probability: NDArray[np.float64], item: NDArray[np.int64]) -> NDArray[np.float64]:
    """The fit, log p(item) / sum_j p(j)^2: how likely a choice this was, against the mean over what the user might choose.

    Args: probability: (n, I), rows sum to 1.   item: (n,). Returns: (n,).
    """
    chosen = np.take_along_axis(probability, item[:, None], axis=1)[:, 0]
    return np.log(chosen / np.einsum("ni,ni->n", probability, probability))


def _product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrix product without BLAS, whose threads cost more than they bring here and whose sums vary with their number."""
    return np.einsum("nk,ki->ni", left, right)


def _check(what: str, values: NDArray[np.int64], low: int, high: int) -> None:
    wrong = values[(values < low) | (values > high)]
    if wrong.size:
        raise InvalidInput(say(f"{what} is outside the world", got=int(wrong[0]), allowed=f"{low}..{high}"))
