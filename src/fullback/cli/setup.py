"""What the options of ``fullback train`` say, loaded and checked, before anything is trained."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullback.cli.inputs import data_options, image_shape, load_dataset, load_unpacked
from fullback.cli.recipe import (
    Recipe,
    chosen_monitor,
    chosen_optimizer,
    class_weights,
    default_epochs,
    default_net,
    why_net,
    with_frozen_filters,
)
from fullback.cli.start_from import load_for_start, open_start, what_is_kept
from fullback.errors import OptionError

if TYPE_CHECKING:
    from fullback.data import Dataset
    from fullback.network import Network


@dataclass(frozen=True, eq=False)
class Setup:
    """What is trained and how, and the network before training.

    Attributes
    ----------
    origin : where the network comes from, where the user named none or a saved one
    compare : whether the same network is trained with frozen filters afterwards
    """

    recipe: Recipe
    network: Network
    origin: str
    compare: bool

    def chosen(self) -> dict[str, Any]:
        """Return the options that were chosen for the data, where the user left them out."""
        training = self.recipe.training
        return {
            "net": None if self.recipe.start is not None else self.recipe.net,
            "epochs": training.epochs,
            "batch_size": training.batch_size,
        }


def set_up(given: Any, *, in_folder: bool, load: Callable[..., Dataset] = load_dataset) -> Setup:
    """Load the data and build the network that options describe.

    Parameters
    ----------
    given : has the options of ``fullback train`` as attributes, by the names of its parameters
    in_folder : whether the run is kept in a folder
    load : loads a data set, as ``load_dataset`` does

    Raises
    ------
    FullbackError
        An option, the data or the network cannot be used.
    """
    from fullback.augment import Augment
    from fullback.options import require_number
    from fullback.training.options import TrainingOptions
    from fullback.training.schedules import parse

    optimizer = (given.optimizer, given.lr, given.momentum, given.weight_decay, given.clip)
    chosen = chosen_optimizer(*optimizer)
    require_number("--validation", given.validation, "[0, 1)")
    rate = parse(given.schedule)
    views = None if given.augment is None else Augment.parse(given.augment)
    net = default_net(given.data) if given.net is None else given.net
    shape = image_shape(given.image_size)
    split = (given.resize, given.test_share, given.split_seed, given.label_column)
    ways = data_options(*split, nested=given.nested)
    reading = {"image_folder": given.image_folder, "numbers": given.regression}
    model = None if given.start is None else open_start(given.start, given.net)
    if given.unpack is not None:
        load = _unpacking(given.unpack, model)
    if model is None:
        dataset = load(given.data, given.data_dir, shape, **ways, **reading)
    else:
        place = (given.data, given.data_dir)
        dataset, ways = load_for_start(model, given.start, *place, shape, ways, **reading)
    training = TrainingOptions(
        epochs=given.epochs or default_epochs(len(dataset.x_train)),
        batch_size=min(given.batch_size or 64, len(dataset.x_train)),
        optimizer=chosen,
        schedule=rate,
        class_weight=class_weights(given.class_weight, given.balanced, dataset),
        augment=views,
        mixup=given.mixup,
        average=given.average,
        seed=given.seed,
        engine=given.engine,
        sums=given.sums,
    )
    weighted = given.balanced or given.class_weight is not None
    recipe = Recipe(
        dataset=dataset,
        net=str(given.start or net),
        start=model,
        training=training,
        label_smoothing=given.label_smoothing,
        freeze=tuple(given.freeze or ()),
        validation=given.validation,
        patience=given.patience,
        monitor=chosen_monitor(given.monitor, weighted=weighted),
        min_improvement=given.min_improvement,
        data_options={**dataset.read_with, **ways},
    )
    if given.monitor is not None and not recipe.validates:
        raise OptionError("--monitor needs images for validation; give --validation 0.1")
    network = recipe.network()
    compare = given.compare
    if compare is None:
        simple = given.data == "digits" and given.net in (None, "question") and model is None
        compare = not in_folder and simple and not given.freeze
    if compare:
        with_frozen_filters(network, recipe)
    recipe.check(network)
    origin = why_net(given.data) if given.net is None else ""
    if model is not None:
        origin = what_is_kept(model, dataset, recipe.loss)
    return Setup(recipe, network, origin, compare)


def _unpacking(folder: Path, model: Network | None) -> Callable[..., Dataset]:
    """Return what loads a data set by way of a folder, as ``load_dataset`` does.

    Raises
    ------
    OptionError
        Training starts with a model, by which images are read in more than one way.
    """
    if model is not None:
        raise OptionError(
            "--unpack goes without --from; unpack the data before, by fullback data --unpack"
        )
    return functools.partial(load_unpacked, folder)
