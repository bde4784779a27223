"""The face of it all: a network, and whatever users call on it.

Most methods check what they are given and call another room of the package. What a network is,
its layers, shapes and arrays, is ``Model``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from fullback.engine.choice import answers, loss_and_gradients
from fullback.errors import OptionError
from fullback.layers import Layer, Loss
from fullback.layers.base import Array
from fullback.layers.loss import answered, class_probabilities, share_right
from fullback.model import DType, Engine, Model, check_weights
from fullback.options import require_whole
from fullback.passes import Evaluation, Seed, Trace, adapt, evaluate_logits, trace_batch

if TYPE_CHECKING:
    import os

    from fullback.data import Dataset
    from fullback.engine.listing import Program
    from fullback.explorer.serve import Explorer
    from fullback.training.history import History


class Network(Model):
    """A list of layers with their parameters.

    Parameters
    ----------
    layers : the layers, from the input to the output
    input_shape : shape of one image, (channels, rows, columns), or (features,)
    loss : what training minimises; SoftmaxCrossEntropy() where it is not given
    seed : fixes the initial parameters; each layer draws from a generator of its own
    dtype : "float32" or "float64", the type of every parameter and activation

    Attributes
    ----------
    layers, input_shape, loss, dtype : as given
    names : name of every layer, kind and number: ("conv1", "relu1", "pool1", "conv2", ...)
    shapes : output shape of every layer, for one image
    parameters : what training updates: {"conv1.weight": (K, C, R, S), "conv1.bias": (K,), ...}.
        Entries may be assigned; shapes are checked and values cast
    statistics : what is measured and not trained: {"batchnorm1.mean": (C,), ...}; likewise
    frozen : names of the layers whose parameters and statistics training leaves alone
    class_names : names of the outputs, where they have names; kept in model files
    data_options : options of ``load_data`` by which the images were read, and are to be again:
        resize, test_share and split_seed; kept in model files
    trained_on : what the images were like that it was trained on, and on which scale; None before
        training; kept in model files. uint8 images are brought to that scale
    threshold : the probability from which on one class is answered, see ``Threshold``; None, the
        default, answers the most probable class. ``predict`` and ``score`` apply it; it may be
        assigned, training removes it, and model files keep it

    Where a method takes ``engine``, it is ``"lanes"``, the fast one, or ``"reference"``, the pages
    of ``layers/`` in NumPy. None, the default, is ``"lanes"`` for a float32 network; a float64
    network has the reference only.

    Raises
    ------
    OptionError, ShapeError
        The layers do not make a network, or one does not fit the shape it is given; the message
        names it.
    """

    def _new(self, layers: Sequence[Layer], loss: Loss, seed: int, dtype: DType) -> Network:
        # not of the type of a subclass, whose __init__ may take what it likes
        return Network(layers, self.input_shape, loss=loss, seed=seed, dtype=dtype)

    def _repr_html_(self) -> str:
        from fullback.show.notebook import network_html

        return network_html(self)

    def explore(self, data: Dataset | None = None, *, height: int = 900) -> Explorer:
        """Open the explorer in a notebook: the network in a page to touch, train and break.

        The page works on a copy; the network stays as it is. As the last line of a cell, the
        explorer shows itself; its ``address`` opens in any browser on this machine, and ``close``
        ends it.

        Parameters
        ----------
        data : what images are picked from, and trained on; None for the built-in digits
        height : of the page, in pixels

        Raises
        ------
        OptionError
            The packages of the extra ``explore`` are not installed.
        ShapeError, InputError
            The page cannot show the network: it takes no images, or tells no classes apart.
        """
        from fullback.explorer.launch import in_notebook

        return in_notebook(self, data, height)

    def fit(self, x: ArrayLike, y: ArrayLike, **options: Any) -> History:
        """Train the network in place: ``fullback.fit(net, x, y, **options)``."""
        from fullback.training.fit import fit

        return fit(self, x, y, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a model file: ``fullback.save(net, path)``."""
        from fullback.export.safetensors import save

        save(self, path)

    def summary(self) -> str:
        """Return a table of the layers: names, options, shapes, parameters, multiply-adds."""
        from fullback.show.summary import summary_text

        return summary_text(self)

    def program(self, batch_size: int = 64, *, training: bool = True) -> Program:
        """Return what the lane engine runs: a list of instructions, forward and backward.

        ``print`` shows the two sides by side. The program is that of a training step with SGD, or,
        where ``training`` is false, of a prediction.
        """
        from fullback.engine.lanes import program_of

        self.choose_engine("lanes")
        require_whole("batch_size", batch_size, 1)
        return program_of(self, batch_size, training=training)

    # The backward pass --------------------------------------------------------------------------

    def trace(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        training: bool = True,
        seed: Seed = 0,
    ) -> Trace:
        """Run one batch forward and backward and keep everything.

        Parameters
        ----------
        x : images, uint8 or float, of shape (N, C, H, W), or (N, H, W) for one channel
        y : labels of shape (N,), or targets of shape (N, outputs): see the loss
        sample_weight : weights of shape (N,), for a weighted mean as the loss
        training : whether dropout and batch statistics are in force, as in a training step
        seed : fixes what dropout leaves out

        Raises
        ------
        ShapeError, InputError
            Shapes that do not fit, labels out of range, values that are not finite, no images.
        """
        batch = self._batch(x, y, sample_weight, seed)
        return trace_batch(self, *batch, training=training, seed=seed)

    def loss_and_gradients(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        training: bool = True,
        seed: Seed = 0,
        engine: Engine | None = None,
    ) -> tuple[float, dict[str, Array]]:
        """Return the batch's loss, and dL/dp for every parameter p; takes what ``trace`` takes."""
        batch = self._batch(x, y, sample_weight, seed)
        return loss_and_gradients(self, *batch, training=training, seed=seed, engine=engine)

    def _batch(
        self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, seed: Seed
    ) -> tuple[Array, Array, Array | None]:
        """Check a batch and return its images, targets and weights."""
        images = self.check_images(x)
        targets = self.loss.targets(y, len(images), self.output_shape[0])
        for number in seed if isinstance(seed, tuple) else (seed,):
            require_whole("seed", number, 0)
        return images, targets, check_weights(sample_weight, len(images))

    # Prediction ---------------------------------------------------------------------------------

    def logits(self, x: ArrayLike, *, engine: Engine | None = None) -> Array:
        """Return the last layer's output, before any softmax, of shape (N, outputs).

        Raises
        ------
        ShapeError, InputError
            Shapes that do not fit, values that are not finite, no images; or the network's own
            weights are not finite.
        """
        return answers(self, self.check_images(x), engine)

    def predict_proba(self, x: ArrayLike, *, engine: Engine | None = None) -> Array:
        """Return the probability of every class, of shape (N, classes).

        For BinaryCrossEntropy they are the outputs' sigmoids p, or, of one output, 1 - p and p.

        Raises
        ------
        OptionError
            The loss is MeanSquaredError, so the outputs are not logits of classes.
        """
        if not self.loss.classifies:
            raise OptionError(f"predict_proba needs a classifier, but the loss is {self.loss}")
        return answers(self, self.check_images(x), engine, probabilities=True)

    def predict(self, x: ArrayLike, *, engine: Engine | None = None) -> Array:
        """Return the label of every image, of shape (N,); for MeanSquaredError, the outputs.

        The label is that of the most probable class, or what ``threshold`` makes of the
        probabilities.
        """
        if self.threshold is not None:
            return self.threshold.answers(self.predict_proba(x, engine=engine))
        logits = self.logits(x, engine=engine)
        return answered(self.loss, logits) if self.loss.classifies else logits

    def score(self, x: ArrayLike, y: ArrayLike, *, engine: Engine | None = None) -> float:
        """Return the share of images that are predicted right; for MeanSquaredError, R^2.

        R^2 of a single image is NaN.
        """
        return self.evaluate(x, y, engine=engine).score

    def evaluate(self, x: ArrayLike, y: ArrayLike, *, engine: Engine | None = None) -> Evaluation:
        """Return the loss and the score on a data set, with the network as in prediction."""
        logits = self.logits(x, engine=engine)
        found = evaluate_logits(self.loss, logits, y)
        if self.threshold is None:
            return found
        targets = self.loss.targets(y, *logits.shape)
        labels = self.threshold.answers(class_probabilities(self.loss, logits))
        return Evaluation(found.loss, float(share_right(labels, targets).mean()))

    def adapt(self, x: ArrayLike) -> None:
        """Measure the images' mean and deviation for the Normalize layer that comes first.

        Raises
        ------
        OptionError
            The first layer is not Normalize.
        """
        adapt(self, self.check_images(x))


def load(path: str | os.PathLike[str]) -> Network:
    """Read a network that ``save`` wrote.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, not a fullback model, or written by a newer version.
    """
    from fullback.export.safetensors import read_model

    return read_model(path, Network)[0]
