"""The knobs of Atelier, its calendar and its sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

VERSION = "1"
"""Rises with every change that draws another world from the same size and seed."""
DAY_US = 86_400_000_000
DAYS = 731
"""2024 and 2025."""
WEEKS = -(-DAYS // 7)
START_US = 1_704_067_200_000_000
"""2024-01-01 00:00 UTC, a Monday."""
END_US = START_US + DAYS * DAY_US


@dataclass(frozen=True)
class AtelierConfig:
    """How large the shop is and how strongly each term of the utility speaks (see `atelier` for the formula)."""

    users: int
    items: int
    brands: int = 24
    styles: int = 8
    opening_share: float = 0.6
    """Part of the catalog on sale from the first day; the rest comes in eight seasonal collections."""
    taste: float = 0.75
    """Exponent of the style densities: 0 makes all styles alike."""
    style_concentration: float = 0.05
    """Dirichlet concentration of the users' mixtures: small makes a user one style, large a blend."""
    drift: float = 0.25
    """Part of the style mixture that a user exchanges, evenly, over the two years."""
    loyalty: float = 1.2
    """Mean bonus of a user's three favourite brands."""
    category_spread: float = 0.3
    """Standard deviation of the personal bonus of a category."""
    budget_width: float = 0.6
    """Distance, in log price, at which an item off the budget has lost half a unit."""
    appeal: float = 0.12
    """Standard deviation of what everybody sees in an item."""
    season: float = 0.8
    """Gain of an item at the height of its season; the loss half a year later."""
    novelty: float = 0.8
    """Bonus on the day of launch."""
    novelty_days: float = 21.0
    """Days in which the bonus falls by the factor e."""
    trend: float = 0.2
    """Weight of recent popularity. Below 1 the feedback does not run away."""
    trend_memory: float = 0.8
    """Part of the recent views that still counts a week later."""
    existing_share: float = 0.65
    """Part of the users who joined before the first day."""
    sessions: float = 15.0
    """Mean number of visits in the two years."""
    activity_spread: float = 0.6
    """Standard deviation of the logarithm of the number of visits."""
    views_per_session: float = 4.5
    """Mean number of views in a visit."""
    fewest_views: int = 5
    """Views that at least one visit of every user holds."""
    cart: float = -1.3
    """Log odds that a view becomes a cart at average fit."""
    purchase: float = 0.0
    """Log odds that a cart becomes a purchase at average fit."""
    fit: float = 0.5
    """Gain of both log odds per unit of fit."""
    alternatives: int = 0
    """0: every item is drawn from the whole softmax. Else by rejection, and the fit is measured against so many draws."""


SIZES: Mapping[str, AtelierConfig] = MappingProxyType(
    {
        "tiny": AtelierConfig(users=160, items=240, brands=12, styles=5, sessions=8.0),
        "small": AtelierConfig(users=2_000, items=1_000),
        "large": AtelierConfig(users=1_000_000, items=100_000, styles=16, sessions=4.0, alternatives=32),
    }
)
