"""MNIST: the real files where they are at hand, and downloads from a server on this machine."""

import contextlib
import gzip
import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pooch
import pytest

from fullback.data import load_data, load_idx, mnist
from fullback.errors import DataError, DownloadError
from support.files import REAL, idx_bytes

NAMES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]
X = np.arange(6 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(6, 28, 28)
Y = np.array([3, 1, 4, 1, 5, 9], np.uint8)
ARRAYS = dict(zip(NAMES, [X, Y, X[:2], Y[:2]], strict=True))


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    monkeypatch.delenv("FULLBACK_DATA", raising=False)


@pytest.mark.skipif(not REAL.is_dir(), reason="the MNIST files are not at hand")
class TestRealFiles:
    def test_each_file(self):
        arrays = [load_idx(REAL / f"{name}.gz") for name in NAMES]
        assert [a.shape for a in arrays] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
        assert all(a.dtype == np.uint8 for a in arrays)
        assert arrays[1][:5].tolist() == [5, 0, 4, 1, 9]
        assert arrays[3][:5].tolist() == [7, 2, 1, 0, 4]
        assert np.bincount(arrays[3]).tolist() == [
            *(980, 1135, 1032, 1010, 982),
            *(892, 958, 1028, 974, 1009),
        ]

    def test_data_set(self):
        data = mnist(REAL)
        assert data.name == "mnist"
        assert data.x_train.shape == (60000, 1, 28, 28)
        assert data.x_test.shape == (10000, 1, 28, 28)
        assert data.x_train.dtype == np.uint8
        assert data.y_train.dtype == np.int64
        assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
        assert data.classes == 10
        assert round(float(data.x_test.mean()), 1) == 33.8

    def test_folder(self):
        data = load_data(REAL)
        assert (len(data.x_train), len(data.x_test)) == (60000, 10000)
        assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]


def write_files(folder, names):
    for array, name in zip(ARRAYS.values(), names, strict=True):
        content = idx_bytes(array)
        (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("joint", ["-idx", ".idx"])
def test_folder_names(tmp_path, monkeypatch, suffix, joint):
    write_files(tmp_path, [name.replace("-idx", joint) + suffix for name in NAMES])
    data = mnist(str(tmp_path))
    np.testing.assert_array_equal(data.x_train[:, 0], X)
    np.testing.assert_array_equal(data.y_test, Y[:2])
    monkeypatch.setenv("FULLBACK_DATA", str(tmp_path))
    np.testing.assert_array_equal(mnist().x_test, data.x_test)
    np.testing.assert_array_equal(load_data("mnist").x_test, data.x_test)


def test_given_folder_goes_before_the_environment(tmp_path, monkeypatch):
    write_files(tmp_path, NAMES)
    monkeypatch.setenv("FULLBACK_DATA", str(tmp_path / "elsewhere"))
    assert len(mnist(tmp_path).x_train) == 6


def test_folder_without_some_files(tmp_path, monkeypatch):
    write_files(tmp_path, NAMES)
    for name in NAMES[1:3]:
        (tmp_path / name).unlink()
    monkeypatch.setenv("FULLBACK_DATA", str(tmp_path))
    text = f"has no {NAMES[1]}, {NAMES[2]}; expected the four MNIST files .*, with or without .gz"
    with pytest.raises(DataError, match=text) as caught:
        mnist()
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"none: cannot be listed .*No such file.*check the path"):
        mnist(tmp_path / "none")
    with pytest.raises(DataError, match=r"cannot be listed .*null"):
        mnist("a\0b")


def test_damaged_file_in_a_folder(tmp_path):
    write_files(tmp_path, NAMES)
    (tmp_path / NAMES[2]).write_bytes(b"<html>")
    with pytest.raises(DataError, match=f"{NAMES[2]}: starts with bytes 3c 68 74 6d"):
        mnist(tmp_path)


def test_images_of_two_sizes_in_a_folder(tmp_path):
    write_files(tmp_path, NAMES)
    (tmp_path / NAMES[2]).write_bytes(idx_bytes(X[:2, :20]))
    with pytest.raises(DataError, match=r"x_train holds images of shape \(1, 28, 28\) but x_test"):
        mnist(tmp_path)


class Server(BaseHTTPRequestHandler):
    """Answers /good/NAME with the file, and other folders with some failure."""

    def do_GET(self):
        _, folder, name = self.path.split("/")
        self.server.asked.append(self.path)
        content = gzip.compress(idx_bytes(ARRAYS[name.removesuffix(".gz")]), mtime=0)
        if folder == "missing":
            self.send_error(404)
            return
        if folder == "slow":
            time.sleep(0.6)
        if folder == "wrong":
            content = content[:-1] + b"!"
        self.send_response(200)
        if folder != "unsized":
            self.send_header("Content-Length", len(content))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # of a client that went away
            self.wfile.write(content[: len(content) // 2] if folder == "cut" else content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def download(server, tmp_path, monkeypatch):
    """Download from these folders of the server, as mirrors, into an empty cache."""
    module = mnist.__globals__
    hashes = {
        name: hashlib.sha256(gzip.compress(idx_bytes(array), mtime=0)).hexdigest()
        for name, array in ARRAYS.items()
    }
    monkeypatch.setitem(module, "SHA256", hashes)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)

    def run(*folders, progress=False):
        port = server.server_port
        mirrors = tuple(f if ":" in f else f"http://127.0.0.1:{port}/{f}/" for f in folders)
        monkeypatch.setitem(module, "MIRRORS", mirrors)
        return mnist(progress=progress)

    run.cache = tmp_path / "fullback" / "mnist"
    return run


def fails(download, *folders):
    with pytest.raises(DownloadError) as caught:
        download(*folders)
    assert "\n" not in str(caught.value)
    assert list(download.cache.iterdir()) == []  # neither a part of the file nor a temporary one
    return str(caught.value)


def test_download_once(download, server, capfd):
    level = pooch.get_logger().level
    data = download("good")
    np.testing.assert_array_equal(data.x_train[:, 0], X)
    np.testing.assert_array_equal(data.y_train, Y)
    assert server.asked == [f"/good/{name}.gz" for name in NAMES]
    assert sorted(p.name for p in download.cache.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    np.testing.assert_array_equal(download("missing").x_test, data.x_test)
    assert len(server.asked) == 4
    assert capfd.readouterr() == ("", "")
    assert pooch.get_logger().level == level


@pytest.mark.parametrize("folder", ["good", "unsized"])
def test_progress_goes_to_standard_error(download, folder, capsys):
    download(folder, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Downloading" not in err
    assert all(f"{name}.gz" in err for name in NAMES)
    download(folder, progress=True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("first", ["wrong", "missing", "cut"])
def test_second_mirror(download, server, first):
    np.testing.assert_array_equal(download(first, "good").x_train[:, 0], X)
    assert len(server.asked) == 8


def test_damaged_file_in_the_cache_is_fetched_again(download, server):
    download("good")
    (download.cache / f"{NAMES[0]}.gz").write_bytes(b"part")
    np.testing.assert_array_equal(download("good").x_train[:, 0], X)
    assert len(server.asked) == 5


def test_offline(download):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    message = fails(download, f"http://127.0.0.1:{port}/a/", f"http://127.0.0.1:{port}/b/")
    assert message.startswith(f"{NAMES[0]}.gz of MNIST could not be downloaded to ")
    assert f"/a/ (ConnectionError) or http://127.0.0.1:{port}/b/ (ConnectionError);" in message
    assert "check the connection and that folder, or give a folder with" in message
    assert all(f"{name}.gz" in message for name in NAMES)
    assert message.endswith("--data-dir or FULLBACK_DATA, or use the built-in data set 'digits'")


def test_every_mirror_fails(download, monkeypatch):
    monkeypatch.setitem(mnist.__globals__, "TIMEOUT", (0.2, 0.2))
    message = fails(download, "wrong", "missing", "cut", "slow")
    assert "/wrong/ (wrong checksum) or " in message
    assert "/missing/ (HTTP status 404) or " in message
    assert "/cut/ (ChunkedEncodingError) or " in message
    assert "/slow/ (ReadTimeout);" in message


def test_cache_that_cannot_be_written(download, tmp_path):
    (tmp_path / "fullback").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=r"could not be downloaded to .*\[Errno") as caught:
        download("good")
    assert "\n" not in str(caught.value)
