"""The catalog of Atelier: what an item looks like, costs and is called, and when it goes on sale."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator
from numpy.typing import NDArray

from rediffuse.data.worlds.atelier_config import DAY_US, START_US, AtelierConfig

SEASONS = ("spring", "summer", "autumn", "winter", "all")
SEASON_PEAK = np.array([105.0, 196.0, 288.0, 14.0])
"""(4,) day of the year, from 0, at which a season stands highest."""
PATTERNS = ("solid", "h-stripes", "v-stripes", "check", "dots")
PATTERN_SHARE = (0.4, 0.16, 0.12, 0.16, 0.16)
PATTERN_WORD = ("", "striped", "pinstriped", "checked", "dotted")
MATERIALS = ("cotton", "linen", "wool", "denim", "silk", "leather", "nylon")
MATERIAL_PREMIUM = np.array([0.0, 0.1, 0.3, 0.05, 0.5, 0.6, -0.1])
MATERIAL_FORMALITY = np.array([0.0, 0.02, 0.06, -0.12, 0.15, 0.08, -0.12])
BRANDS = (
    *("Aldermoor", "Brisolde", "Calvenne", "Dorrick", "Elvarra", "Fennwick", "Galdrey", "Hollin & Ames"),
    *("Istrella", "Jorvane", "Kestling", "Lumaire", "Marrowby", "Norvane", "Ostenby", "Pellerin Row"),
    *("Quillon", "Rosmere", "Sandrick", "Tessaly", "Ulverton", "Vantrel", "Wexholm", "Yarrowgate"),
)
COLLECTIONS = ((45, 0), (115, 1), (225, 2), (295, 3), (410, 0), (480, 1), (590, 2), (640, 3))
"""First day and season of each collection; the last two fall in the last fifth of the two years."""
DROPS_PER_COLLECTION = 4


@dataclass(frozen=True)
class Category:
    """What all items of a category share."""

    name: str
    slot: str
    price: float
    """Middle of the price, before brand and material."""
    formality: float
    seasons: tuple[float, float, float, float, float]
    """Weights of spring, summer, autumn, winter and all."""
    materials: tuple[str, ...]


CATEGORIES = (
    Category("t-shirt", "top", 22, 0.15, (2, 5, 1, 0.5, 3), ("cotton", "linen")),
    Category("shirt", "top", 48, 0.6, (3, 2, 2, 1, 4), ("cotton", "linen", "silk", "denim")),
    Category("sweater", "top", 58, 0.4, (1, 0.5, 4, 5, 1), ("wool", "cotton")),
    Category("jacket", "layer", 110, 0.5, (4, 1, 4, 1, 2), ("denim", "leather", "wool", "nylon")),
    Category("coat", "layer", 170, 0.65, (1, 0.2, 4, 6, 0.5), ("wool", "nylon")),
    Category("dress", "layer", 85, 0.65, (4, 5, 1, 1, 2), ("cotton", "silk", "linen", "wool")),
    Category("trousers", "bottom", 65, 0.5, (2, 1, 2, 2, 5), ("cotton", "denim", "wool", "linen")),
    Category("skirt", "bottom", 52, 0.5, (3, 4, 2, 1, 2), ("cotton", "denim", "wool", "silk")),
    Category("sneakers", "shoes", 80, 0.1, (2, 2, 1, 1, 5), ("cotton", "leather", "nylon")),
    Category("boots", "shoes", 130, 0.55, (1, 0.3, 4, 5, 1), ("leather", "nylon")),
    Category("bag", "accessory", 95, 0.5, (1, 1, 1, 1, 6), ("leather", "cotton", "nylon")),
    Category("hat", "accessory", 30, 0.35, (1, 4, 1, 4, 1), ("wool", "cotton", "linen")),
)
CATEGORY_SHARE = (12, 11, 10, 8, 7, 9, 10, 8, 8, 7, 6, 4)


@dataclass(frozen=True)
class ItemTable:
    """The catalog as arrays over the items, in the order of the item numbers."""

    category: NDArray[np.int64]
    brand: NDArray[np.int64]
    hue: NDArray[np.float64]
    """Turns, 0 red."""
    saturation: NDArray[np.float64]
    value: NDArray[np.float64]
    pattern: NDArray[np.int64]
    pattern_scale: NDArray[np.float64]
    """0 fine .. 1 coarse; 0 where the pattern is solid."""
    material: NDArray[np.int64]
    length: NDArray[np.float64]
    """0 short .. 1 long, within the category."""
    price: NDArray[np.float64]
    formality: NDArray[np.float64]
    season: NDArray[np.int64]
    """Number in `SEASONS`."""
    launch_day: NDArray[np.int64]
    """Days after the start."""
    appeal: NDArray[np.float64]
    """Latent: what everybody sees in it, in units of utility."""

    def __len__(self) -> int:
        """Number of items, I."""
        return len(self.category)


def draw_items(config: AtelierConfig, rng: Generator) -> ItemTable:
    """Draw the catalog, in the order of launch."""
    n = config.items
    launch_day, collection_season = _launches(config, rng)
    category = _pick(rng, np.tile(np.array(CATEGORY_SHARE, dtype=np.float64), (n, 1)))
    brand = _pick(rng, np.tile(rng.gamma(4.0, size=config.brands), (n, 1)))
    material = _pick(rng, _material_weights()[category])
    pattern = _pick(rng, np.tile(np.array(PATTERN_SHARE), (n, 1)))
    season = _pick(rng, _season_weights(category, collection_season))
    hue, saturation, value = _colours(n, rng)
    price, formality = _price_and_formality(config, rng, category, brand, material)
    return ItemTable(
        category=category,
        brand=brand,
        hue=hue,
        saturation=saturation,
        value=value,
        pattern=pattern,
        pattern_scale=np.where(pattern == 0, 0.0, rng.uniform(0.1, 1.0, n)),
        material=material,
        length=rng.beta(2.0, 2.0, n),
        price=price,
        formality=formality,
        season=season,
        launch_day=launch_day,
        appeal=rng.normal(0.0, config.appeal, n),
    )


def item_ids(n: int) -> list[str]:
    """External ids of item numbers 0 .. n-1."""
    return numbered("A", n)


def numbered(letter: str, n: int) -> list[str]:
    """Ids that sort like their numbers: five digits, more where there are more."""
    width = max(5, len(str(n - 1)))
    return [f"{letter}{number:0{width}d}" for number in range(n)]


def item_frame(items: ItemTable) -> pl.DataFrame:
    """The visible columns; the appeal stays hidden."""
    colour = colour_names(items.hue, items.saturation, items.value)
    category = np.array([c.name for c in CATEGORIES])[items.category]
    material = np.array(MATERIALS)[items.material]
    words = zip(colour, np.array(PATTERN_WORD)[items.pattern], material, category, strict=True)
    titles = [" ".join(str(word) for word in four if word) for four in words]
    return pl.DataFrame(
        {
            "item": item_ids(len(items)),
            "title": [title[0].upper() + title[1:] for title in titles],
            "category": category.tolist(),
            "slot": np.array([c.slot for c in CATEGORIES])[items.category].tolist(),
            "brand": np.array(BRANDS)[items.brand].tolist(),
            "hue": items.hue,
            "saturation": items.saturation,
            "value": items.value,
            "colour": colour.tolist(),
            "pattern": np.array(PATTERNS)[items.pattern].tolist(),
            "pattern_scale": items.pattern_scale,
            "material": material.tolist(),
            "length": items.length,
            "price": items.price,
            "formality": items.formality,
            "season": np.array(SEASONS)[items.season].tolist(),
            "first_seen_us": START_US + items.launch_day * DAY_US,
        }
    )


def colour_names(
    hue: NDArray[np.float64], saturation: NDArray[np.float64], value: NDArray[np.float64]
) -> NDArray[np.str_]:
    """An everyday word for each colour. Args: hue, saturation, value: (n,) in 0..1. Returns: (n,)."""
    dark, deep = value < 0.45, value < 0.65
    bins = np.array([0.02, 0.075, 0.13, 0.19, 0.25, 0.44, 0.53, 0.69, 0.8, 0.9, 0.97])
    bright = ("red", "orange", "amber", "yellow", "lime", "green", "teal", "blue", "violet", "magenta", "pink", "red")
    muted = ("brick", "rust", "ochre", "mustard", "olive", "green", "teal", "blue", "plum", "mauve", "rose", "brick")
    shade = ("burgundy", "brown", "brown", "khaki", "olive", "forest", "petrol", "navy", "aubergine", "aubergine")
    shades = (*shade, "burgundy", "burgundy")
    named = np.digitize(hue, bins)
    chromatic = np.where(dark, np.array(shades)[named], np.where(deep, np.array(muted)[named], np.array(bright)[named]))
    warm = (hue < 0.2) & (saturation >= 0.08)
    grey = np.select([value < 0.25, value > 0.88, warm], ["black", "white", "beige"], "grey")
    return np.where((saturation < 0.18) | (value < 0.16), grey, chromatic)


def _launches(config: AtelierConfig, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Day of launch, rising, and the season of the collection (4 for the opening stock); both (I,)."""
    opening = round(config.items * config.opening_share)
    collection = np.sort(rng.integers(0, len(COLLECTIONS), config.items - opening))
    first, season = (np.array(column, dtype=np.int64) for column in zip(*COLLECTIONS, strict=True))
    day = first[collection] + 7 * rng.integers(0, DROPS_PER_COLLECTION, len(collection))
    order = np.argsort(day, kind="stable")
    zeros = np.zeros(opening, dtype=np.int64)
    return np.concatenate((zeros, day[order])), np.concatenate((zeros + 4, season[collection][order]))


def _material_weights() -> NDArray[np.float64]:
    """(categories, materials)."""
    return np.array([[float(material in c.materials) for material in MATERIALS] for c in CATEGORIES])


def _season_weights(category: NDArray[np.int64], collection: NDArray[np.int64]) -> NDArray[np.float64]:
    """(I, 5): a collection is nearly all of its own season or for the whole year."""
    weights = np.array([c.seasons for c in CATEGORIES], dtype=np.float64)[category]
    off_season = (collection[:, None] != np.arange(5)) & (collection[:, None] < 4)
    off_season[:, 4] = False
    return np.where(off_season, 0.03 * weights, weights)


def _colours(n: int, rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Hue, saturation and value; a quarter of the catalog is black, grey, white or beige."""
    neutral = rng.random(n) < 0.25
    saturation = np.where(neutral, rng.beta(1.5, 12.0, n), 0.2 + 0.8 * rng.beta(3.0, 2.0, n))
    value = np.where(neutral, rng.beta(0.7, 0.7, n), 0.25 + 0.75 * rng.beta(2.5, 2.0, n))
    return rng.random(n), saturation, value


def _price_and_formality(
    config: AtelierConfig,
    rng: Generator,
    category: NDArray[np.int64],
    brand: NDArray[np.int64],
    material: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-normal around category, brand and material; a dear brand is also a formal one, loosely."""
    tier = rng.normal(0.0, 0.4, config.brands)
    lean = 0.12 * tier / 0.4 + rng.normal(0.0, 0.06, config.brands)
    middle = np.log([c.price for c in CATEGORIES])[category] + tier[brand] + MATERIAL_PREMIUM[material]
    price = np.floor(np.exp(middle + rng.normal(0.0, 0.22, len(category)))) + 0.9
    base = np.array([c.formality for c in CATEGORIES])[category] + lean[brand] + MATERIAL_FORMALITY[material]
    return price, np.clip(base + rng.normal(0.0, 0.1, len(category)), 0.0, 1.0)


def _pick(rng: Generator, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """One column number per row, in proportion to the weights. Args: weights: (n, m). Returns: (n,)."""
    cumulative = weights.cumsum(axis=1)
    point = rng.random(len(weights)) * cumulative[:, -1]
    return (cumulative <= point[:, None]).sum(axis=1)
