"""Links: what a session did, done again."""

from __future__ import annotations

from fullback.errors import FullbackError, InputError
from fullback.explorer.config import MOST_LAYERS, MOST_VALUES
from fullback.explorer.fields import Fields
from fullback.explorer.session import MOST_ACTIONS, Session
from fullback.explorer.training import read_run
from fullback.explorer.uploads import read_pixels

LONGEST_TEXT = 2000  # of a network

_MOST_REPEATED = 20_000  # batches of training


def restore(session: Session, given: Fields) -> str | None:
    """Do again what a link says: the network's actions, the image, the label.

    Return why some of it was left out, or None: a link may be damaged, or from a server that
    was started with another network.
    """
    left_out = None
    for work in (_restore_network, _restore_shown):
        try:
            work(session, given)
        except FullbackError as error:
            left_out = left_out or str(error)
    return left_out


def _restore_network(session: Session, given: Fields) -> None:
    actions = given.given.get("actions") or []
    if not isinstance(actions, list) or len(actions) > MOST_ACTIONS:
        raise InputError("it is damaged: its actions are not a list")
    builds = bool(actions) and Fields.of(actions[0], "an action").has("text")
    if given.has("start") and given.text("start", 8) != session.config.fingerprint and not builds:
        raise InputError("it was made with another network than this server was started with")
    every = [Fields.of(action, "an action") for action in actions]
    if sum(action.whole("batches", 0, 10**9, 0) for action in every) > _MOST_REPEATED:
        raise InputError(
            f"its network was trained on more than {_MOST_REPEATED:,} batches, which would "
            "take too long to do again; save the model, and open it"
        )
    for action in every:
        _repeat(session, action)
    if given.flag("partial"):
        raise InputError("it could not hold how its network was made")


def _restore_shown(session: Session, given: Fields) -> None:
    if given.has("image"):
        _restore_image(session, Fields.of(given.given["image"], "image"))
    if given.has("label"):
        session.set_label(given.whole("label", 0, 10**6))


def _restore_image(session: Session, image: Fields) -> None:
    if image.has("pixels"):
        text = image.text("pixels", 4 * MOST_VALUES)
        session.show_image(read_pixels(text, session.net.input_shape), "drawing")
    else:
        part = image.choice("part", ("test", "train"))
        session.pick(part, image.whole("index", 0, 10**9))


def _repeat(session: Session, action: Fields) -> None:
    kind = action.choice("do", ("network", "reset", "train", "step"))
    if kind == "network":
        session.build(action.text("text", LONGEST_TEXT), action.whole("seed", 0, 2**31))
    elif kind == "reset":
        session.reset(action.whole("seed", 0, 2**31))
    elif kind == "train":
        run = read_run(action)
        trainer = session.train(run)
        trainer.train(action.whole("batches", 0, trainer.total))
        session.settle()
    else:
        _restore_image(session, Fields.of(action.given.get("image"), "image"))
        session.set_label(action.whole("label", 0, 10**6))
        freeze = tuple(action.texts("freeze", 40, MOST_LAYERS))
        session.step(action.number("rate", "(0, 100]"), freeze)
