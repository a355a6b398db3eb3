"""Laws of the recipes: which choices go together, and that what they build learns."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from lowprec.train import fit, recipes
from lowprec.train.dataset import Dataset
from lowprec.train.layers import Activation, AlphaDropout, BatchNormalization, Dense
from lowprec.train.model import Sequential
from lowprec.train.optimizing.optimizer import Optimizer
from lowprec.train.recipes import Recipe
from lowprec.train.schedules import OneCycle

RECIPES = {
    "default": lambda widths: recipes.default(widths, steps=50),
    "self_normalizing": lambda widths: recipes.self_normalizing(widths, steps=50),
}


def kinds(model):
    return [type(layer) for layer in model.layers]


def blobs(inputs=8, classes=3, count=240):
    """Return points about as many centres as there are classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, count)
    x = rng.standard_normal((classes, inputs))[y] * 2 + rng.standard_normal((count, inputs))
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    cut = count * 3 // 4
    return Dataset(x[:cut], y[:cut], x[cut:], y[cut:])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
class TestEveryRecipe:
    def test_it_unpacks_into_model_and_optimizer(self, recipe):
        model, optimizer = made = recipe([8, 16, 3])
        assert isinstance(made, Recipe)
        assert isinstance(model, Sequential)
        assert isinstance(optimizer, Optimizer)

    @pytest.mark.parametrize("widths", [[8, 3], [8, 16, 3], [8, 9, 10, 11, 12, 13, 3]])
    def test_the_widths_are_those_of_the_dense_layers(self, recipe, widths):
        model, _ = recipe(widths)
        dense = [layer for layer in model.layers if isinstance(layer, Dense)]
        assert [layer.units for layer in dense] == widths[1:]
        shapes = model.shapes()
        assert (shapes[0], shapes[-1]) == ((widths[0],), (widths[-1],))

    def test_the_last_layer_is_linear(self, recipe):
        model, _ = recipe([8, 16, 3])
        assert model.layers[-1].activation is None

    def test_inputs_may_be_a_shape(self, recipe):
        model, _ = recipe([(4, 5, 2), 16, 3])
        params = model.init(rng=0)
        assert model.apply(params, np.zeros((7, 4, 5, 2), np.float32)).shape == (7, 3)

    def test_the_cycle_is_as_long_as_the_training(self, recipe):
        schedule = recipe([8, 16, 3]).optimizer.learning_rate
        assert isinstance(schedule, OneCycle)
        assert schedule.steps == 50

    def test_it_can_be_pickled(self, recipe):
        model, optimizer = pickle.loads(pickle.dumps(recipe([8, 16, 3])))
        assert model == recipe([8, 16, 3]).model
        assert optimizer.learning_rate == recipe([8, 16, 3]).optimizer.learning_rate

    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
    def test_what_it_builds_learns(self, recipe, policy):
        model, optimizer = recipe([8, 32, 32, 3])
        history = fit(
            model,
            blobs(),
            loss="sparse_categorical_crossentropy",
            optimizer=optimizer,
            policy=policy,
            epochs=8,
            rng=0,
        )
        assert history.history["val_accuracy"][-1] >= 0.9

    @pytest.mark.parametrize("widths", [[], [8]])
    def test_two_widths_are_the_least(self, recipe, widths):
        with pytest.raises(ValueError, match="pass inputs, hidden layers and outputs"):
            recipe(widths)

    def test_only_inputs_have_a_shape(self, recipe):
        with pytest.raises(ValueError, match="only the inputs"):
            recipe([8, (4, 4), 3])


def test_shallow_networks_take_elu_and_deep_ones_batch_normalisation_and_swish():
    shallow, deep = (recipes.default([8, *hidden, 3], 50).model for hidden in ([16] * 3, [16] * 4))
    assert kinds(shallow) == [Dense] * 4
    assert {layer.activation for layer in shallow.layers[:-1]} == {"elu"}
    assert kinds(deep) == [Dense, BatchNormalization, Activation] * 4 + [Dense]
    assert not any(layer.use_bias for layer in deep.layers[:-1:3])
    assert deep.layers[2] == Activation("swish")


@pytest.mark.parametrize("recipe", [recipes.default, recipes.self_normalizing])
def test_a_list_of_widths_is_enough(recipe):
    model, optimizer = recipe([64, 100, 10])
    assert model.init(0)["0/kernel"].shape == (64, 100)
    assert optimizer.rate(0) == optimizer.rate(10_000) > 0


def test_the_default_is_he_and_adamw():
    model, optimizer = recipes.default([1000, 500, 3], 50)
    kernel = model.init(rng=0)["0/kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / 1000), rel=0.02)
    assert optimizer.name == "AdamW"


def test_self_normalizing_is_lecun_selu_alpha_dropout_and_nesterov():
    model, optimizer = recipes.self_normalizing([1000, 500, 400, 3], dropout=0.25)
    assert kinds(model) == [Dense, AlphaDropout] * 2 + [Dense]
    assert {layer.activation for layer in model.layers[:-1:2]} == {"selu"}
    assert {layer.rate for layer in model.layers[1::2]} == {0.25}
    kernel = model.init(rng=0)["0/kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(1 / 1000), rel=0.02)
    assert (optimizer.name, optimizer.rate(0)) == ("Nesterov", 0.01)


def test_self_normalizing_networks_normalise_themselves():
    widths = [100] * 20
    x = np.random.default_rng(0).standard_normal((500, 100)).astype(np.float32)
    model, _ = recipes.self_normalizing(widths)
    y = model.apply(model.init(rng=0), x)
    assert y.mean() == pytest.approx(0, abs=0.2)
    assert y.std() == pytest.approx(1, abs=0.25)


def test_no_dropout_means_no_such_layers():
    model, _ = recipes.self_normalizing([8, 16, 16, 3], dropout=0)
    assert kinds(model) == [Dense] * 3
