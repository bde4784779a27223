"""NumPy networks as people write them, most with a mistake in the backward pass.

They are the inputs of the gradient doctor's tests. None is made from fullback's code, and no two
share code. Each module has

- ``ARCHITECTURE`` and ``INPUT_SHAPE``: the same network in fullback's text form;
- ``MISTAKES``: pairs (layer, mistake) in fullback's names, from the loss downwards. A mistake in
  code that several layers share is listed for each layer that shows it;
- ``run(parameters, x, y, wrong=True)``: takes fullback's parameters, images (N, C, H, W) and labels
  and returns what the program computed, in its own names, layouts and shapes: ``"loss"``,
  ``"gradients"``, ``"deltas"``, ``"activations"`` and, mostly, ``"probabilities"``. With
  ``wrong=False`` it is the program without its mistakes;
- ``to_fullback(result)``: the gradients under fullback's names and in its layouts;
- ``NAMES``: fullback's name for each of the program's own, for gradients, deltas and activations;
- ``DELTAS_PER_IMAGE``, where it is true: the deltas are those of each image's own loss, N times
  those of the mean, and the gradients are divided by N later. That is no mistake.

Programs of ``STEPS`` are training steps, whose gradients are in their updates alone. Each has

- ``ARCHITECTURE`` and ``INPUT_SHAPE``, and ``LOSS``, the name of fullback's loss if it is another
  than softmax with cross-entropy;
- ``create(parameters)``: the program's weights, in what it keeps them in, from fullback's;
- ``step(weights, x, y, wrong="")``: one step with a batch, or with an image and its label where
  ``ONE_IMAGE`` is true, which changes the weights or returns new ones; ``wrong`` names a mistake;
- ``read(weights)``: the weights under fullback's names and in its layouts;
- ``MISTAKES``: by the name that ``step`` knows, what the doctor must answer: the layer, the id in
  the catalogue, or None where the layer and the quantity are all there is to say, the quantity;
- ``ALSO``, where a mistake is one more in the catalogue: that one's id, by the same name;
- ``OPTIONS``: what ``diagnose_program`` has to be told: the learning rate, the convolution;
- ``l2(images)``, where there is a penalty that depends on their number: its coefficient;
- ``SUM``, where the loss is a sum over the batch; ``FACTOR``, where the loss has another constant;
- ``HIDES_ITS_GRADIENT`` and ``gradients(weights)``, where a step does not show them.
"""

import importlib
from types import ModuleType

NAMES = (
    "blog_regions",
    "book_im2col",
    "channels_last_classes",
    "closures_batch_last",
    "convn_formulas",
    "course_functions",
    "dilate_and_rotate",
    "einsum_windows",
    "estimator_coefs",
    "even_kernel_same",
    "global_script",
    "kron_cost_function",
    "layer_table",
    "lists_of_maps",
    "loops_one_image",
    "matlab_port",
    "module_classes",
    "nabla_lists",
    "one_long_function",
    "one_sample_layers",
    "overlapping_argmax",
    "pure_functions_dropout",
    "question_notation",
    "right_fourier",
    "right_plain_lists",
    "right_tensordot",
    "sequential_shared_layer",
    "slices_and_hparameters",
    "torch_order_flatten",
    "unrolled_matrix",
)

STEPS = (
    "adam_moments",
    "backprop_with_learn_rate",
    "backward_with_lr",
    "batchnorm_by_graph",
    "cat_or_not",
    "filter_objects",
    "fourier_layers",
    "layers_as_dicts",
    "lenet_with_momentum",
    "lists_and_loops",
    "padding_by_hand",
    "pairs_and_pullbacks",
    "parameters_and_caches",
    "quadratic_cost",
    "rate_in_the_delta",
    "reshaped_pool",
    "tape_of_values",
    "theta_in_columns",
    "three_layer_convnet",
    "true_convolutions",
)


def training_step(name: str) -> ModuleType:
    """A program of ``STEPS`` by its name; some need what not everybody has installed."""
    return importlib.import_module(f"{__name__}.{name}")


PROGRAMS = {name: importlib.import_module(f"{__name__}.{name}") for name in NAMES}
"""Every program by its module's name."""
