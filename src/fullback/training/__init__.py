"""Training: ``fit``, its options, optimizers and schedules, and what goes on beside it.

Begin with ``fit.py``: it prepares a `TrainingRun` (``run.py``) from `TrainingOptions` and
`TrainingData`, and trains it epoch by epoch. ``stepper.py`` has the loop over batches, which the
rate finder and the explorer share; ``reference_stepper.py`` makes a step in NumPy, and
``lane_stepper.py`` on the lane engine.

To add
- a practice beside training, like the checkpoint: a `Listener` in a file, and in ``fit``'s list;
- an option: a field of `TrainingOptions` with its check, and a parameter of ``fit``;
- an optimizer: a dataclass in ``optimizers.py`` with its name in ``OPTIMIZERS``; the reference
  engine runs it, the lane engine needs a kernel (``_update`` in ``lane_stepper.py``);
- a schedule: a function or a dataclass in ``schedules.py``, with its name in ``SCHEDULES``.
"""
