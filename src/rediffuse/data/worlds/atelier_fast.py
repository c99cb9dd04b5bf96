"""Drawing views when the catalog is too large for a softmax over all of it: by composition and rejection.

The weight of item i for user u at time t is a product, w = s a, of a part that mixes what all users share and a part
that only lowers it:

    s_i = sum_k m_k(t) f_k(i) exp(appeal + season + novelty + trend)      m the user's mixture of styles
    a_i = exp(loyalty + use - (p_i - b_u)^2 / (2 width^2)) <= exp(l_u + max_c g_uc) = top_u

A draw from s takes a style, in proportion to m_k(t) times the sum of its row, then an item from that row by a search in
its cumulative sums, which are made once a day. It is kept with probability a_i / top_u, else drawn again. What is kept
has probability s_i a_i / sum_j s_j a_j: exactly that of `Truth.preference`, whatever the catalog's size.

The fit of a choice, log w_i + log sum_j w_j - log sum_j w_j^2, needs two sums over the catalog. They are estimated from
M = `alternatives` draws j from s, made once a day for each visitor:

    sum_j w_j / sum_j s_j ~ mean a_j        sum_j w_j^2 / sum_j s_j ~ mean s_j a_j^2

so a cart in such a world depends on how the item stands against M others that the visitor might have been shown.
"""

import itertools

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from rediffuse.data.worlds.atelier_config import DAY_US, DAYS, START_US
from rediffuse.data.worlds.atelier_events import Choices
from rediffuse.data.worlds.atelier_truth import Truth, Utility, trend_term, weeks_table

Numbers = NDArray[np.int64]
Floats = NDArray[np.float64]


def choose(utility: Utility, user: Numbers, time_us: Numbers, rng: Generator) -> tuple[Choices, Truth]:
    """Draw the item of every view, a day at a time; a week's trend is made by the weeks before it.

    Args: user, time_us: (n,), by time.
    Limits: K I floats for the tables of a day; about 8 tries a view.
    """
    trend, recent = weeks_table(len(utility.items)), np.zeros(len(utility.items))
    item, fit = np.zeros(len(user), dtype=np.int64), np.zeros(len(user))
    edges = np.searchsorted((time_us - START_US) // DAY_US, np.arange(DAYS + 1)).tolist()
    monday = 0
    for day, (start, stop) in enumerate(itertools.pairwise(edges)):
        week, weekday = divmod(day, 7)
        if weekday == 0:
            if week:
                counts = np.bincount(item[monday:start], minlength=len(recent))
                recent = utility.config.trend_memory * recent + counts
            trend[week], monday = trend_term(utility.config, recent), start
        rows = slice(start, stop)
        shop = Day(utility, utility.on_day(np.array([day]))[0] * np.exp(trend[week]))
        item[rows], fit[rows] = shop.draw(user[rows], time_us[rows], rng)
    trend.setflags(write=False)
    return Choices(user, time_us, item, fit), Truth(utility, trend)


class Day:
    """What all users share on one day: s for each style alone, and its cumulative sums."""

    def __init__(self, utility: Utility, factor: Floats) -> None:
        """Args: factor: (I,) exp(appeal + season + novelty + trend) and the budget term without its user."""
        self.utility, self.n_items = utility, len(factor)
        # The budget's own part stands in `factor`; here it is kept for the user's part, which must not exceed 1.
        factor = factor * np.exp(0.5 * (utility.relative_price / utility.config.budget_width) ** 2)
        self.factor = factor
        cumulative = (utility.densities * factor).cumsum(axis=1)
        self.total = cumulative[:, -1].copy()
        # Row k fills [k, k + 1): one sorted array to search in.
        self.steps = (cumulative / self.total[:, None] + np.arange(len(self.total))[:, None]).ravel()

    def draw(self, user: Numbers, time_us: Numbers, rng: Generator) -> tuple[Numbers, Floats]:
        """An item and its fit for every view. Args: user, time_us: (n,). Returns: both (n,)."""
        users = self.utility.users
        mixture = self.utility.mixture(user, time_us)
        top = users.loyalty[user] + users.category[user].max(axis=1)
        item = np.zeros(len(user), dtype=np.int64)
        pending = np.arange(len(user))
        while len(pending):
            found = self._shared(mixture[pending], rng)
            lowered = self._personal(user[pending], found) - top[pending]
            kept = np.log1p(-rng.random(len(pending))) < lowered
            item[pending[kept]] = found[kept]
            pending = pending[~kept]
        chosen = np.log(self._weight(mixture, item)) + self._personal(user, item)
        return item, chosen - self._usual(user, mixture, rng)

    def _shared(self, mixture: Floats, rng: Generator) -> Numbers:
        """One draw from s a row. Args: mixture: (n, K). Returns: (n,)."""
        cumulative = (mixture * self.total).cumsum(axis=1)
        style = (cumulative <= rng.random(len(mixture))[:, None] * cumulative[:, -1:]).sum(axis=1)
        place = np.searchsorted(self.steps, style + rng.random(len(mixture)), side="right")
        # style + a number just below 1 may round up to the next row.
        return np.minimum(place - style * self.n_items, self.n_items - 1)

    def _weight(self, mixture: Floats, item: Numbers) -> Floats:
        """The shared part s of items. Args: mixture: (n, K).   item: (n,)."""
        return np.einsum("nk,kn->n", mixture, self.utility.densities[:, item]) * self.factor[item]

    def _personal(self, user: Numbers, item: Numbers) -> Floats:
        """The logarithm of the personal part a of items. Args: user, item: (n,)."""
        users, items = self.utility.users, self.utility.items
        favourite = (users.favourite[user] == items.brand[item][:, None]).any(axis=1)
        off = (self.utility.relative_price[item] - users.log_budget[user]) / self.utility.config.budget_width
        return favourite * users.loyalty[user] + users.category[user, items.category[item]] - 0.5 * off**2

    def _usual(self, user: Numbers, mixture: Floats, rng: Generator) -> Floats:
        """The logarithm of sum_j w_j^2 / sum_j w_j, estimated once for each user. Returns: (n,)."""
        who, first, place = np.unique(user, return_index=True, return_inverse=True)
        m = self.utility.config.alternatives
        many, blend = np.repeat(who, m), np.repeat(mixture[first], m, axis=0)
        item = self._shared(blend, rng)
        a = np.exp(self._personal(many, item))
        squared = (self._weight(blend, item) * a**2).reshape(-1, m).mean(axis=1)
        return np.log(squared / a.reshape(-1, m).mean(axis=1))[place]
