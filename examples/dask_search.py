"""A grid search on a Dask cluster that goes on, with the same results, where a worker is lost.

Usage: ``python dask_search.py`` for two processes on this machine, or with the address of a
scheduler: ``python dask_search.py tcp://host:8786``
"""

import sys

import joblib
from distributed import Client, LocalCluster
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, check_cv

import fullback as fb


def fit_on_dask(client, search, X, y):  # noqa: N803 -- scikit-learn's X
    """Fit GridSearchCV, RandomizedSearchCV or HalvingGridSearchCV on a cluster.

    joblib sends large arrays to one worker, and a search fails when that one is lost. So every
    worker gets a copy of the data and of the folds, and Dask does not take copies for superfluous.
    """
    search.cv = list(check_cv(search.cv, y, classifier=True).split(X, y))
    data = [X, y, *(part for fold in search.cv for part in fold)]
    client.amm.stop()
    try:
        with joblib.parallel_config("dask", scatter=data):
            return search.fit(X, y)
    finally:
        client.amm.start()


def main():
    X, y = load_digits(return_X_y=True)  # noqa: N806
    model = fb.CNNClassifier(epochs=20, random_state=0)
    values = {"learning_rate_init": [0.01, 0.03, 0.1], "batch_size": [32, 64]}
    address = sys.argv[1] if len(sys.argv) > 1 else None
    cluster = address or LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client:
        search = fit_on_dask(client, GridSearchCV(model, values, cv=3), X, y)
        print(f"{search.best_score_:.4f} with {search.best_params_}")
    if address is None:
        cluster.close()


if __name__ == "__main__":
    main()
