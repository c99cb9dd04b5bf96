"""The one table of methods: names, third parties, recipes and what is tuned of them."""

from importlib.metadata import EntryPoint
from types import MappingProxyType

import pytest

from rediffuse import recipes
from rediffuse.baselines.popularity import Popularity
from rediffuse.errors import InvalidConfig
from rediffuse.models.diffrec import DiffRecConfig
from rediffuse.training.loop import TrainingConfig


def test_every_name_leads_to_a_class_and_a_role() -> None:
    assert set(recipes.methods()) >= {"popularity", "ease", "diffrec", "t-diffrec"}
    for name, entry in recipes.METHODS.items():
        cls = recipes.method_class(name)
        assert f"{cls.__module__}:{cls.__name__}" == entry.target
        assert entry.role in ("control", "classic", "diffusion", "method")


def test_a_recipe_decides_every_setting_in_order() -> None:
    chosen = recipes.recipe("t-diffrec", "t-yelp-clean", {"levels": 7, "batch_size": 3})
    assert isinstance(chosen.config, DiffRecConfig)
    assert isinstance(chosen.training, TrainingConfig)
    assert (chosen.config.recency, chosen.config.weight_min, chosen.config.hidden) == ("linear", 0.5, (1000,))
    assert (chosen.config.levels, chosen.training.batch_size, chosen.training.learning_rate) == (7, 3, 1e-5)
    assert (chosen.label, chosen.role, chosen.seeded) == ("t-diffrec:t-yelp-clean", "diffusion", True)
    plain = recipes.recipe("popularity")
    assert (plain.label, plain.role, plain.seeded, plain.preset) == ("popularity", "control", False, None)
    assert recipes.recipe("t-diffrec", None, {"recency": "none"}).config == recipes.recipe("diffrec").config


def test_what_is_unknown_is_refused_with_the_nearest_name() -> None:
    for args, sentence in (
        (("diffrek",), "Unknown method 'diffrek'. Nearest known method: 'diffrec'."),
        (("ease", "atelie"), "Unknown preset 'atelie'. Nearest known preset: 'atelier'."),
        (("popularity", "any"), "Unknown preset 'any'. There is none."),
        (("diffrec", None, {"epoch": 3}), "Unknown key 'epoch'. Nearest known key: 'epochs'."),
    ):
        with pytest.raises(InvalidConfig) as caught:
            recipes.recipe(*args)
        assert str(caught.value) == sentence


def test_a_third_party_is_found_by_its_entry_point_and_cannot_take_a_name_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [
        EntryPoint(name, f"{Popularity.__module__}:Popularity", "rediffuse.methods") for name in ("theirs", "ease")
    ]
    monkeypatch.setattr(recipes, "entry_points", lambda group: points if group == "rediffuse.methods" else [])
    found = recipes.methods()
    assert found["theirs"].role == "method"
    assert recipes.method_class("theirs") is Popularity
    assert found["ease"] == recipes.METHODS["ease"]


def test_the_table_is_not_changed_by_accident() -> None:
    assert isinstance(recipes.METHODS, dict | MappingProxyType)
    assert recipes.methods() == recipes.methods()
    assert recipes.methods() is not recipes.METHODS


def test_ages_in_days_are_tuned_in_days() -> None:
    days = recipes.recipe("ease", settings={"recency": "exponential", "half_life_days": 30.0})
    assert set(days.tunable()) == {"regularization", "half_life_days"}
    assert set(recipes.recipe("ease", "exponential").tunable()) == {"regularization", "half_life"}
    assert set(recipes.recipe("t-diffrec").tunable()) >= {"weight_min", "learning_rate"}


def test_what_makes_a_control_one_is_never_tuned() -> None:
    control = recipes.recipe("diffrec", "ml-1m-clean-no-noise")
    assert control.role == "control" == recipes.role_of("diffrec", "ml-1m-clean-no-noise")
    assert not {"levels", "noise_scale"} & set(control.tunable())
    assert {"levels", "noise_scale"} <= set(recipes.recipe("diffrec", "ml-1m-clean").tunable())
