"""Normalised ink: the same in TensorFlow and numpy, and nothing of pen and paper in it."""

import io
import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image

from signver import SignVerError
from signver.preprocessing import HEIGHT, SPREAD, WIDTH, normalise_signature, otsu
from training.data import signatures
from training.extractor import preprocessing


def synthetic(writer=0, number=0):
    page = signatures.synthesize(5, writer, number, signatures.GENUINE)
    return np.asarray(Image.open(io.BytesIO(page.image)).convert("L"))


def both(grey):
    """The SDK's result, after a look at whether training's is the same."""
    found = normalise_signature(grey)
    np.testing.assert_allclose(found, preprocessing.normalise(grey).numpy(), atol=2e-6)
    return found


@pytest.mark.parametrize("writer", range(6))
def test_both_languages_give_the_same_on_synthetic_signatures(writer):
    found = both(synthetic(writer))
    assert found.shape == (HEIGHT, WIDTH)
    assert found.max() <= 1 + 1e-6
    assert found.min() >= 0


def test_both_languages_give_the_same_on_real_signatures(shared_data):
    files = sorted((shared_data / "cedar" / "full_org").glob("*.png"))[::90]
    files += sorted((shared_data / "sigcomp2011-dutch").glob("*/*/*.png"))[::90]
    assert len(files) > 20
    for file in files:
        both(np.asarray(Image.open(file).convert("L")))


@pytest.mark.parametrize("size", [(40, 60), (30, 900), (700, 50), (333, 1201)])
def test_both_languages_give_the_same_in_any_size(size):
    grey = cv2.resize(synthetic(), size[::-1], interpolation=cv2.INTER_AREA)
    found = both(grey)
    if max(size) > 8 * min(size):
        return  # the ends of so flat a one lie outside
    # Its ink stands in the middle.
    for axis, side in ((1, HEIGHT), (0, WIDTH)):
        mass = found.sum(axis, dtype=np.float64)
        assert mass @ (np.arange(side) + 0.5) / mass.sum() == pytest.approx(side / 2, abs=0.05 * side)


@pytest.mark.parametrize("longest", [12, 60, 96, 191, 224, 383])
def test_small_pictures_are_enlarged_as_pillow_does_it(longest):
    grey = synthetic()
    scale = longest / max(grey.shape)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    factor = 2 ** int(np.ceil(np.log2(384 / max(small.shape))))
    large = Image.fromarray(small).resize(
        (small.shape[1] * factor, small.shape[0] * factor), Image.Resampling.BICUBIC
    )
    found = normalise_signature(np.asarray(large))
    np.testing.assert_array_equal(normalise_signature(small), found)
    np.testing.assert_allclose(preprocessing.normalise(small).numpy(), found, atol=2e-6)


def test_grey_levels_keep_the_edges_between_the_pixels_of_a_small_picture():
    whole = np.full((448, 896), 255, np.uint8)
    for number in range(5):
        cv2.ellipse(whole, (150 + 150 * number, 224), (110, 70 + 20 * number), 20 * number, 0, 300, 0, 14)
    small = cv2.resize(whole, (224, 112), interpolation=cv2.INTER_AREA)
    wanted = normalise_signature(whole)
    enlarged, left = (np.abs(normalise_signature(small, enlarge_below=n) - wanted).mean() for n in (384, 0))
    assert enlarged < 0.7 * left


def test_the_ink_is_as_wide_and_as_high_as_said():
    """Both spreads multiplied are what the picture's size says, whatever the signature's proportions."""
    for width in (60, 150, 400):
        grey = np.full((300, 600), 255, np.uint8)
        cv2.ellipse(grey, (300, 150), (width // 2, 40), 0, 0, 360, 0, 3)
        found = both(grey)
        spreads = []
        for axis, size in ((1, HEIGHT), (0, WIDTH)):
            mass, place = found.sum(axis, dtype=np.float64), np.arange(size) + 0.5
            middle = mass @ place / mass.sum()
            spreads.append(np.sqrt(mass @ (place - middle) ** 2 / mass.sum()))
        down, across = HEIGHT / 2 / SPREAD[0] / spreads[0], WIDTH / 2 / SPREAD[1] / spreads[1]
        assert down * across == pytest.approx(1, rel=0.03)


def test_grey_levels_of_ink_and_paper_change_nothing():
    grey = synthetic().astype(np.float32)
    faint = np.rint(200 + grey * (40 / 255)).astype(np.uint8)
    hard = both(np.where(grey > 128, 255, 0).astype(np.uint8))
    # Where the threshold falls within the soft edge moves it by a fraction of a pixel, no more.
    assert np.abs(both(faint) - both(grey.astype(np.uint8))).mean() < 0.01
    assert np.abs(hard - both(grey.astype(np.uint8))).mean() < 0.02


def test_where_it_stands_on_the_paper_changes_nothing():
    grey = synthetic()
    moved = cv2.copyMakeBorder(grey, 60, 5, 11, 140, cv2.BORDER_CONSTANT, value=255)
    np.testing.assert_allclose(both(moved), both(grey), atol=1e-6)


def test_a_speck_far_off_does_not_shrink_it():
    grey = cv2.copyMakeBorder(synthetic(), 200, 200, 200, 200, cv2.BORDER_CONSTANT, value=255)
    clean = both(grey)
    grey[3:5, 3:5] = 0
    # Four pixels of some thousands move the spread by little.
    assert both(grey).sum() == pytest.approx(clean.sum(), rel=0.05)


def test_the_mass_of_the_ink_is_kept():
    """Area averaging: the sum over the area's scale is the number of ink pixels."""
    grey = np.full((200, 400), 255, np.uint8)
    cv2.rectangle(grey, (50, 60), (249, 159), 0, -1)
    down, across = HEIGHT / 2 / SPREAD[0] * 12**0.5 / 100, WIDTH / 2 / SPREAD[1] * 12**0.5 / 200
    assert both(grey).sum() == pytest.approx(200 * 100 * down * across, rel=0.01)


def test_the_threshold_is_otsus():
    grey = synthetic()
    expected, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    assert otsu(grey) == preprocessing.otsu(grey).numpy() == expected


def picture(values, mode=None):
    return Image.fromarray(values, mode) if mode else Image.fromarray(values)


@pytest.mark.parametrize(
    ("grey", "message"),
    [
        (np.full((50, 80), 255, np.uint8), "no signature: 0 pixels of ink"),
        (np.zeros((50, 80), np.uint8), "no signature: 0 pixels of ink"),
        (np.full((1, 1), 7, np.uint8), "no signature: 0 pixels of ink"),
        (np.zeros((0, 5), np.uint8), "image array: expected"),
    ],
)
def test_pictures_without_ink_are_refused(grey, message):
    with pytest.raises(SignVerError, match=message):
        normalise_signature(grey)


def test_one_pixel_of_ink_is_no_signature():
    grey = np.full((50, 80), 255, np.uint8)
    grey[20, 30] = 0
    with pytest.raises(SignVerError, match="1 pixels of ink on a picture of 4000"):
        normalise_signature(grey)


def test_light_ink_on_dark_is_said():
    with pytest.raises(SignVerError, match="expected dark ink on light"):
        normalise_signature(255 - synthetic())


def test_every_kind_of_picture_gives_the_same(tmp_path):
    grey = synthetic()
    expected = normalise_signature(grey)
    rgba = np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey])  # black ink, transparent paper
    kinds = {
        "rgb": picture(np.dstack([grey] * 3)),
        "cmyk": picture(np.dstack([grey] * 3)).convert("CMYK"),
        "rgba": picture(rgba, "RGBA"),
        "16 bit": picture(grey.astype(np.uint16) * 257),
    }
    for name, image in kinds.items():
        # Conversions round a grey level, which moves single pixels at the threshold.
        assert np.abs(normalise_signature(image) - expected).mean() < 0.005, name


def test_a_picture_of_20000_pixels_is_reduced():
    grey = cv2.resize(synthetic(), (20_000, 800), interpolation=cv2.INTER_NEAREST)
    found = normalise_signature(grey)
    assert found.shape == (HEIGHT, WIDTH)
    assert found.any()


def test_a_truncated_file_is_refused_by_name(tmp_path):
    file = tmp_path / "cut.png"
    picture(synthetic()).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(SignVerError, match=r"cut\.png: cannot read this image"):
        normalise_signature(file)
    with pytest.raises(SignVerError, match="cannot read"):
        normalise_signature(pathlib.Path(tmp_path / "none.png"))
