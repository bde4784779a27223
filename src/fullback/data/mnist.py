"""MNIST: from a folder, or downloaded once."""

from __future__ import annotations

import os
from pathlib import Path

from fullback.data.arrays.idx import find_idx_files, load_idx_pair
from fullback.data.dataset import Dataset
from fullback.data.split import from_file
from fullback.errors import DataError, DownloadError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SHA256 = {  # of the files as published, compressed
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
TIMEOUT = (10.0, 30.0)  # seconds to connect, and to wait for the next bytes


def mnist(data_dir: str | os.PathLike[str] | None = None, *, progress: bool = True) -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test images of handwritten digits.

    Parameters
    ----------
    data_dir : path-like, optional
        A folder with the four IDX files, plain or compressed. They are checked as IDX files, not
        against the published checksums. By default the folder that the environment variable
        ``FULLBACK_DATA`` names; without that, the files are downloaded once into the user's cache
        folder and verified by SHA-256.
    progress : bool, default=True
        Show a progress bar on standard error while downloading.

    Returns
    -------
    Dataset
        uint8 images of shape (1, 28, 28), 0..255, white on black.

    Raises
    ------
    DataError
        If a file is missing from the folder, or damaged.
    DownloadError
        If no mirror delivers a file with the right checksum.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document
    Recognition", Proceedings of the IEEE 86(11), 1998.
    """
    folder = data_dir or os.environ.get("FULLBACK_DATA")
    files = _find(Path(folder)) if folder else _download(progress)
    train_x, train_y, test_x, test_y = (files[name] for name in SHA256)
    return from_file(
        train_x.parent, "mnist", load_idx_pair(train_x, train_y), load_idx_pair(test_x, test_y)
    )


def _find(folder: Path) -> dict[str, Path]:
    files = find_idx_files(folder)
    if missing := [name for name in SHA256 if name not in files]:
        raise DataError(
            f"{folder}: has no {', '.join(missing)}; expected the four MNIST files "
            f"{', '.join(SHA256)}, with or without .gz: put them there, or give another folder "
            "with --data-dir or FULLBACK_DATA"
        )
    return files


def _download(progress: bool) -> dict[str, Path]:
    """Fetch the files that are not in the cache yet, each from the first mirror that has it."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # pooch announces each download
    try:
        folder = Path(pooch.os_cache("fullback")) / "mnist"
        return {name: _fetch(f"{name}.gz", SHA256[name], folder, progress) for name in SHA256}
    finally:
        logger.setLevel(level)


def _fetch(name: str, sha256: str, folder: Path, progress: bool) -> Path:
    import pooch

    def download(url: str, output: str, _: object) -> None:
        _get(url, Path(output), progress)

    failures = []
    for mirror in MIRRORS:
        try:
            # pooch writes to a temporary file and renames it once the checksum is right.
            found = pooch.retrieve(
                mirror + name, f"sha256:{sha256}", fname=name, path=folder, downloader=download
            )
            return Path(found)
        except (OSError, ValueError) as error:
            failures.append(f"{mirror} ({_reason(error)})")
            last = error
    raise DownloadError(
        f"{name} of MNIST could not be downloaded to {folder} from {' or '.join(failures)}; "
        "check the connection and that folder, or give a folder with "
        f"{', '.join(f'{file}.gz' for file in SHA256)} with --data-dir or FULLBACK_DATA, "
        "or use the built-in data set 'digits'"
    ) from last


def _get(url: str, output: Path, progress: bool) -> None:
    """Download one file; unlike pooch's own downloader, close the connection when it fails."""
    import requests
    from rich.console import Console
    from rich.progress import Progress

    # Identity: the checksum is of the file as it is, not as a server or a proxy unpacks it.
    headers = {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=TIMEOUT, headers=headers) as response:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0)) or None
        with Progress(console=Console(stderr=True, quiet=not progress)) as bar:
            task = bar.add_task(url.rpartition("/")[2], total=size)
            with output.open("wb") as file:
                for piece in response.iter_content(2**16):
                    file.write(piece)
                    bar.advance(task, len(piece))


def _reason(error: Exception) -> str:
    """Say in a few words what requests or pooch says in paragraphs."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return type(error).__name__
    if isinstance(error, ValueError) and "hash" in str(error):
        return "wrong checksum"
    return " ".join(str(error).split())
