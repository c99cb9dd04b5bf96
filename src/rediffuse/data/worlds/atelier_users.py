"""The people of Atelier: the styles they share, what each one likes, and what a shop sees of them."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from rediffuse.data.worlds.atelier_config import DAY_US, DAYS, START_US, AtelierConfig
from rediffuse.data.worlds.atelier_items import CATEGORIES, PATTERNS, ItemTable, numbered

AGE_BANDS = ("18-24", "25-34", "35-49", "50+")
REGIONS = ("north", "east", "south", "west", "abroad")
TIERS = ("bronze", "silver", "gold")
FAVOURITE_BRANDS = 3
BUDGET_SPREAD = 0.45
LOYALTY_SHAPE = 4.0
STANDING_NOISE = 0.4
TIER_QUANTILES = (0.6, 0.9)
MIXTURE_FLOOR = 1e-9
LAST_JOIN_DAY = round(0.7 * DAYS)


@dataclass(frozen=True)
class Styles:
    """K ways to dress, each a density over the attributes of an item."""

    hue_centre: NDArray[np.float64]
    """(K, 2) turns: the centres of two von Mises bumps."""
    hue_share: NDArray[np.float64]
    """(K, 2), rows sum to 1."""
    hue_concentration: NDArray[np.float64]
    """(K, 2), kappa."""
    saturation: NDArray[np.float64]
    """(K,) preferred saturation."""
    value: NDArray[np.float64]
    """(K,) preferred brightness."""
    formality: NDArray[np.float64]
    """(K,)."""
    pattern: NDArray[np.float64]
    """(K, patterns) probabilities."""
    category: NDArray[np.float64]
    """(K, categories) log weights."""
    brand: NDArray[np.float64]
    """(K, brands) log weights."""

    def log_density(self, items: ItemTable) -> NDArray[np.float64]:
        """Log-likelihood of the attributes of every item under every style, up to a constant. Returns: (K, I)."""
        return (
            self._hue(items)
            - _squared(items.saturation, self.saturation, 0.25)
            - _squared(items.value, self.value, 0.3)
            - _squared(items.formality, self.formality, 0.2)
            + np.log(self.pattern)[:, items.pattern]
            + self.category[:, items.category]
            + self.brand[:, items.brand]
        )

    def _hue(self, items: ItemTable) -> NDArray[np.float64]:
        """log(s vonMises(hue) + 1 - s) with s the saturation: grey has no hue to like."""
        angle = 2 * np.pi * (items.hue - self.hue_centre[..., None])
        bump = np.exp(self.hue_concentration[..., None] * np.cos(angle)) / np.i0(self.hue_concentration)[..., None]
        mixture = (self.hue_share[..., None] * bump).sum(axis=1)
        return np.log(items.saturation * mixture + 1.0 - items.saturation)


@dataclass(frozen=True)
class UserTable:
    """The users as arrays, in the order of the user numbers; all before `joined_us` are latent."""

    style_first: NDArray[np.float64]
    """(U, K) mixture at the start, rows sum to 1."""
    style_last: NDArray[np.float64]
    """(U, K) mixture at the end."""
    favourite: NDArray[np.int64]
    """(U, 3) brands."""
    loyalty: NDArray[np.float64]
    """(U,) bonus of a favourite brand."""
    category: NDArray[np.float64]
    """(U, categories) bonus."""
    log_budget: NDArray[np.float64]
    """(U,) log price relative to the middle of the category."""
    visits: NDArray[np.float64]
    """(U,) expected visits in two full years."""
    joined_us: NDArray[np.int64]
    """(U,)."""
    age_band: NDArray[np.int64]
    """(U,) number in `AGE_BANDS`."""
    region: NDArray[np.int64]
    """(U,) number in `REGIONS`."""
    tier: NDArray[np.int64]
    """(U,) number in `TIERS`."""
    concentration: NDArray[np.float64]
    """(age bands, K), not of a user but of all: the Dirichlet law from which mixtures are drawn."""

    def __len__(self) -> int:
        """Number of users, U."""
        return len(self.joined_us)


def draw_styles(config: AtelierConfig, rng: Generator) -> Styles:
    """Draw styles that lie apart: centres are spread evenly, then jittered."""
    k = config.styles

    def spread(low: float, high: float) -> NDArray[np.float64]:
        return rng.permutation(np.linspace(low, high, k)) + rng.normal(0.0, 0.03, k)

    first = (np.arange(k) + rng.uniform(-0.2, 0.2, k)) / k
    second = first + rng.uniform(0.3, 0.7, k)
    share = rng.uniform(0.55, 0.8, k)
    pattern = rng.gamma(0.7, size=(k, len(PATTERNS))) + 0.05
    pattern[np.arange(k), np.arange(k) % len(PATTERNS)] += 1.0
    return Styles(
        hue_centre=np.stack((first, second), axis=1) % 1.0,
        hue_share=np.stack((share, 1.0 - share), axis=1),
        hue_concentration=rng.uniform(5.0, 10.0, (k, 2)),
        saturation=spread(0.1, 0.9),
        value=spread(0.25, 0.9),
        formality=spread(0.15, 0.75),
        pattern=pattern / pattern.sum(axis=1, keepdims=True),
        category=rng.normal(0.0, 0.4, (k, len(CATEGORIES))),
        brand=rng.normal(0.0, 0.4, (k, config.brands)),
    )


def draw_users(config: AtelierConfig, styles: Styles, rng: Generator) -> UserTable:
    """Draw the users. Age leans towards some styles and the tier follows money and visits, as a shop would see it."""
    n, k = config.users, config.styles
    age = rng.choice(len(AGE_BANDS), n, p=(0.22, 0.33, 0.28, 0.17))
    lean = rng.gamma(2.0, size=(len(AGE_BANDS), k)) + 1.0
    prior = config.style_concentration * k * lean / lean.sum(axis=1, keepdims=True)
    first, fresh = (_dirichlet(prior[age], rng) for _ in range(2))
    log_budget = rng.normal(0.0, BUDGET_SPREAD, n)
    activity = rng.normal(0.0, config.activity_spread, n)
    standing = log_budget + activity + rng.normal(0.0, STANDING_NOISE, n)
    return UserTable(
        style_first=first,
        style_last=(1.0 - config.drift) * first + config.drift * fresh,
        favourite=_favourites(first @ styles.brand, rng),
        loyalty=config.loyalty * rng.gamma(LOYALTY_SHAPE, 1.0 / LOYALTY_SHAPE, n),
        category=rng.normal(0.0, config.category_spread, (n, len(CATEGORIES))),
        log_budget=log_budget,
        visits=config.sessions * np.exp(activity - config.activity_spread**2 / 2),
        joined_us=_joined(config, rng),
        age_band=age,
        region=rng.choice(len(REGIONS), n, p=(0.3, 0.2, 0.25, 0.2, 0.05)),
        tier=np.digitize(standing, np.quantile(standing, TIER_QUANTILES)),
        concentration=prior,
    )


def user_ids(n: int) -> list[str]:
    """External ids of user numbers 0 .. n-1."""
    return numbered("U", n)


def user_frame(users: UserTable) -> pl.DataFrame:
    """What the shop knows of its users."""
    return pl.DataFrame(
        {
            "user": user_ids(len(users)),
            "joined_us": users.joined_us,
            "age_band": np.array(AGE_BANDS)[users.age_band].tolist(),
            "region": np.array(REGIONS)[users.region].tolist(),
            "tier": np.array(TIERS)[users.tier].tolist(),
        }
    )


def _squared(x: NDArray[np.float64], centre: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Half the squared distance in widths. Args: x: (I,).   centre: (K,). Returns: (K, I)."""
    return 0.5 * ((x - centre[:, None]) / width) ** 2


def _dirichlet(concentration: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """One draw per row. The floor keeps a row of underflowing gammas a distribution."""
    draw = rng.standard_gamma(concentration) + MIXTURE_FLOOR
    return draw / draw.sum(axis=1, keepdims=True)


def _favourites(log_weight: NDArray[np.float64], rng: Generator) -> NDArray[np.int64]:
    """Brands drawn without replacement, by the Gumbel-max trick. Args: log_weight: (U, brands). Returns: (U, 3)."""
    keys = log_weight + rng.gumbel(size=log_weight.shape)
    return np.argsort(-keys, axis=1)[:, :FAVOURITE_BRANDS]


def _joined(config: AtelierConfig, rng: Generator) -> NDArray[np.int64]:
    """Before the start for most, later for the others, in time to leave a history."""
    existing = rng.random(config.users) < config.existing_share
    share = rng.random(config.users)
    days = np.where(existing, -DAYS * share, LAST_JOIN_DAY * share)
    return START_US + (days * DAY_US).astype(np.int64)
