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
"""

import importlib

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

PROGRAMS = {name: importlib.import_module(f"{__name__}.{name}") for name in NAMES}
"""Every program by its module's name."""
