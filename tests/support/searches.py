"""Searches with and without a cluster of two workers, of which one may be killed; for test_sweep.

Usage: python searches.py EXAMPLES (grid | random | halving) (kill | spare)
"""

import json
import os
import sys
import threading
import time

import numpy as np
from scipy.stats import loguniform
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV

import fullback as fb


def search(kind):
    model = fb.CNNClassifier("conv4 relu pool flatten dense3", random_state=0, epochs=40)
    values = {"learning_rate_init": [0.003, 0.01, 0.03], "batch_size": [16, 32]}
    if kind == "random":
        drawn = {"learning_rate_init": loguniform(0.001, 0.1), "batch_size": [16, 32]}
        return RandomizedSearchCV(model, drawn, n_iter=6, cv=3, random_state=0)
    if kind == "halving":
        return HalvingGridSearchCV(
            model, values, cv=3, resource="epochs", min_resources=10, max_resources=40, factor=2
        )
    return GridSearchCV(model, values, cv=3)


def threads_in_a_task():
    """How many threads the engine takes in a task, where only Dask's rule limits them."""
    from fullback.engine.machine import threads

    os.environ.pop("OMP_NUM_THREADS", None)
    return threads()


def main():
    from dask_search import fit_on_dask
    from distributed import Client, LocalCluster

    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = rng.integers(0, 160, (300, 12, 12), np.uint8)  # noqa: N806
    X[np.arange(300), 4 * y + 1] += 25
    kind, kill = sys.argv[2], sys.argv[3] == "kill"
    alone = search(kind).fit(X, y)
    options = {"n_workers": 2, "threads_per_worker": 1 if kill else 2, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        pids = client.run(os.getpid)
        threads = client.submit(threads_in_a_task).result()
        killed = []

        def kill_one():
            while not killed:
                time.sleep(0.05)
                for address, tasks in client.processing().items():
                    if tasks and not killed:  # in the middle of one
                        time.sleep(0.2)
                        killed.append(address)
                        os.kill(pids[address], 9)

        if kill:
            killer = threading.Thread(target=kill_one)
            killer.start()
        found = fit_on_dask(client, search(kind), X, y)
        if kill:
            killer.join()
    scores = [s.cv_results_["mean_test_score"].tolist() for s in (alone, found)]
    print(
        json.dumps(
            {
                "same": scores[0] == scores[1] and alone.best_params_ == found.best_params_,
                "scores": scores[1],
                "killed": len(killed),
                "threads": threads,
            }
        )
    )


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    main()
