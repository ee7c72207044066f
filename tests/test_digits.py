import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vmrnn_cli.digits import draw_digit

EXAMPLES = Path(__file__).parents[1] / "examples"


def many(value, count=40, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([draw_digit(value, rng) for _ in range(count)])


def centre_of_mass(picture):
    """(y, x) in pixels from the picture's middle."""
    y, x = np.indices(picture.shape) - (np.array(picture.shape)[:, None, None] - 1) / 2
    weights = picture / picture.sum()
    return np.array([(weights * y).sum(), (weights * x).sum()])


@pytest.mark.parametrize("value", range(10))
def test_a_digit_has_the_geometry_of_mnist(value):
    for picture in many(value):
        assert picture.shape == (28, 28) and picture.dtype == np.uint8
        assert picture.max() == 255
        rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert rim.max() == 0
        rows, columns = np.flatnonzero(picture.max(axis=1) > 127), np.flatnonzero(picture.max(axis=0) > 127)
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 22
        assert np.abs(centre_of_mass(picture)).max() < 2.5
    assert 40 < many(value).sum(axis=(1, 2)).mean() / 255 < 140


def test_no_two_digits_are_the_same():
    for value in range(10):
        assert len({picture.tobytes() for picture in many(value)}) == 40


def test_digits_can_be_told_apart():
    """The nearest mean picture of the ten names most unseen digits, as it does for MNIST (82 %)."""
    means = np.stack([many(value, seed=1).mean(axis=0) for value in range(10)])
    right = [
        np.square(means - picture).sum(axis=(1, 2)).argmin() == value
        for value in range(10)
        for picture in many(value, seed=2)
    ]
    assert np.mean(right) > 0.8


def test_the_seed_decides():
    assert (many(3, seed=5) == many(3, seed=5)).all()
    assert (many(3, seed=5) != many(3, seed=6)).any()


@pytest.mark.parametrize("value", [-1, 10])
def test_only_digits_can_be_drawn(value):
    with pytest.raises(ValueError, match="not a digit"):
        draw_digit(value, np.random.default_rng(0))


def test_stroke_width_is_that_of_mnist():
    data = os.environ.get("VMRNN_TEST_DATA")
    if not data:
        pytest.skip("set VMRNN_TEST_DATA to a folder with data/mnist/t10k-images-idx3-ubyte.gz to compare with MNIST")
    raw = gzip.decompress((Path(data) / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    mnist = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    drawn = np.concatenate([many(value) for value in range(10)])
    ink, mnist_ink = (pictures.sum(axis=(1, 2)).mean() / 255 for pictures in (drawn, mnist))
    assert ink == pytest.approx(mnist_ink, rel=0.1)


def test_the_example_is_what_its_script_makes(tmp_path):
    subprocess.run([sys.executable, EXAMPLES / "make_digits.py", "--out", tmp_path], check=True, timeout=60)
    made, shipped = (np.load(folder / "digits.npz")["frames"] for folder in (tmp_path, EXAMPLES))
    assert made.shape == (20, 64, 64) and made.dtype == np.uint8
    assert (made == shipped).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.mp4", "digits.npz"]
