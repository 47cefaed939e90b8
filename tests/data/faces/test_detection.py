"""Faces found again where they were put; the detector's file; photographs of every kind."""

import hashlib
import http.server
import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from facenas.data.faces import detection
from facenas.data.faces.align import REFERENCE, align, crop_face
from facenas.data.faces.detection import NAME, SHA256, URL, Detector, fetch_detector, find_detector
from facenas.data.faces.store import decode_jpeg
from facenas.data.images import decode_image
from facenas.errors import UserError

SHARED = Path(__file__).parents[3].parent / "shared/data"
YUNET = SHARED / "models" / NAME
LFW = SHARED / "faces/lfw_112x112.zip"
needs_yunet = pytest.mark.skipif(not YUNET.exists(), reason=f"{YUNET} is missing")
needs_faces = pytest.mark.skipif(
    not (YUNET.exists() and LFW.exists()), reason="YuNet or the LFW crops are missing"
)


@pytest.fixture(scope="module")
def detector():
    return Detector(YUNET)


@pytest.fixture(scope="module")
def faces():
    """Four aligned crops, (112, 112, 3) uint8 RGB."""
    with zipfile.ZipFile(LFW) as archive:
        names = [name for name in archive.namelist() if name.endswith("_0001.jpg")][::1400]
        return [decode_jpeg(archive.read(name)) for name in names[:4]]


def scene(width, height, placed):
    """A grey picture with crops pasted: (crop, left, top, side in pixels)."""
    picture = np.full((height, width, 3), 110, np.uint8)
    for crop, left, top, side in placed:
        how = cv2.INTER_AREA if side < 112 else cv2.INTER_CUBIC
        picture[top : top + side, left : left + side] = cv2.resize(crop, (side, side), interpolation=how)
    return picture


def off_template(face, left, top, side):
    """(5,) distances of landmarks to where the template has them, in pixels of a 112x112 crop."""
    points = (face.points - [left, top]) * 112 / side
    return np.linalg.norm(points - REFERENCE, axis=1)


@needs_faces
@pytest.mark.parametrize(
    ("width", "height", "side"),
    [
        (400, 300, 100),
        (112, 112, 112),  # a crop itself
        (60, 60, 60),
        (700, 900, 690),  # it fills the picture
        (4000, 3000, 190),  # small in a large photograph
        (3000, 4000, 2900),
    ],
)
def test_a_face_is_found_where_it_was_put(detector, faces, width, height, side):
    left, top = (width - side) // 2, (height - side) // 3
    for crop in faces:
        picture = scene(width, height, [(crop, left, top, side)])
        found = detector(picture)
        assert len(found) == 1
        assert off_template(found[0], left, top, side).mean() < 8
        again = crop_face(picture, found[0].points)
        blurred = [cv2.blur(image, (9, 9)).astype(int)[20:100, 20:92] for image in (again, crop)]
        assert np.abs(blurred[0] - blurred[1]).mean() < 20
        assert found[0].score > 0.8


@needs_faces
def test_several_faces_come_largest_first(detector, faces):
    places = [(faces[0], 50, 40, 130), (faces[1], 900, 300, 400), (faces[2], 400, 500, 60)]
    found = detector(scene(1400, 800, places))
    assert len(found) == 3
    for face, (_, left, top, side) in zip(found, [places[1], places[0], places[2]], strict=True):
        assert off_template(face, left, top, side).mean() < 8
    assert found[0].area > found[1].area > found[2].area
    assert found[0].box.shape == (4,)


@needs_yunet
def test_pictures_without_a_face(detector):
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    for picture in (noise, np.zeros((1, 1, 3), np.uint8), np.full((2, 3000, 3), 90, np.uint8)):
        assert detector(picture) == []


@needs_faces
def test_threads_and_repetition_give_the_same(detector, faces):
    pictures = [scene(300 + 40 * i, 400, [(faces[i % 4], 30, 30, 150)]) for i in range(8)]
    alone = [detector(picture)[0].points for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: detector(picture)[0].points, pictures))
    np.testing.assert_array_equal(alone, together)


def test_a_large_face_is_averaged_and_a_small_one_is_warped():
    rng = np.random.default_rng(3)
    smooth = cv2.resize(rng.integers(0, 256, (14, 14, 3), np.uint8), (112, 112))
    points = (REFERENCE + 0.5) * 16 - 0.5
    large = cv2.resize(smooth, (1792, 1792), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    noisy = np.clip(large + rng.normal(0, 20, large.shape), 0, 255).astype(np.uint8)
    inner = np.s_[8:104, 8:104]
    error = np.abs(crop_face(noisy, points).astype(int) - smooth)[inner].mean()
    assert error < 4
    assert error < np.abs(align(noisy, points).astype(int) - smooth)[inner].mean() / 2
    np.testing.assert_array_equal(crop_face(smooth, REFERENCE), align(smooth, REFERENCE))


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (33, 35), (1, 1)])
def test_crops_of_odd_pictures(size):
    points = REFERENCE.astype(np.float64) * 40
    assert crop_face(np.full((*size, 3), 9, np.uint8), points).shape == (112, 112, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation):
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:10, :15] = (250, 30, 30)
    as_stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(as_stored)).save(stream, "png", exif=exif)
    np.testing.assert_array_equal(decode_image(stream.getvalue()), upright)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 70, (70, 70, 70)),
        ("RGBA", (10, 20, 30, 90), (169, 172, 176)),
        ("LA", (40, 100), (171, 171, 171)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 0x1234, (0x12, 0x12, 0x12)),
    ],
)
def test_photographs_of_other_colours(mode, value, expected):
    stream = io.BytesIO()
    Image.new(mode, (7, 5), value).save(stream, "png")
    image = decode_image(stream.getvalue())
    assert image.shape == (5, 7, 3)
    assert (image == expected).all()


def test_a_photograph_beyond_50_megapixels():
    stream = io.BytesIO()
    Image.new("1", (10_000, 5_001)).save(stream, "png")
    with pytest.raises(ValueError, match="50 megapixels"):
        decode_image(stream.getvalue())


# The detector's file


@pytest.mark.parametrize("content", [b"", b"no network", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_is_no_network(tmp_path, content):
    path = tmp_path / NAME
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a YuNet face detector"):
        Detector(path)


def test_a_network_that_is_no_detector(tmp_path):
    onnx = pytest.importorskip("onnx")
    image = onnx.helper.make_tensor_value_info("x", 1, [1, 3, "h", "w"])
    out = onnx.helper.make_tensor_value_info("y", 1, [1, 3, "h", "w"])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [image], [out]))
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(UserError, match=r"relu\.onnx: is not a YuNet"):
        Detector(tmp_path / "relu.onnx")


def test_the_given_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "cache"))
    given = tmp_path / "mine.onnx"
    given.write_bytes(b"anything")
    assert find_detector(given) == given
    with pytest.raises(UserError, match=r"missing\.onnx: there is no such file"):
        find_detector(tmp_path / "missing.onnx")


@needs_yunet
def test_the_file_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path))
    assert hashlib.sha256(YUNET.read_bytes()).hexdigest() == SHA256
    (tmp_path / NAME).write_bytes(YUNET.read_bytes())
    assert find_detector() == tmp_path / NAME
    (tmp_path / NAME).write_bytes(YUNET.read_bytes()[:-1])
    with pytest.raises(UserError, match="is damaged; delete it"):
        find_detector()


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server on this machine in place of the public address; what lies in the folder it gives."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(detection, "URL", f"http://127.0.0.1:{server.server_port}/{NAME}")
    monkeypatch.setenv("FACENAS_CACHE", str(tmp_path / "cache"))
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_fetched_once_and_checked(served, tmp_path, monkeypatch):
    (served / NAME).write_bytes(b"the detector")
    with pytest.raises(UserError, match=r"is not there; let it be fetched once \(--download"):
        find_detector()  # never fetches
    with pytest.raises(UserError, match="gave another file than expected"):
        fetch_detector()
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(detection, "SHA256", hashlib.sha256(b"the detector").hexdigest())
    path = fetch_detector()
    assert path == tmp_path / "cache" / NAME
    assert path.read_bytes() == b"the detector"
    assert [entry.name for entry in path.parent.iterdir()] == [NAME]
    (served / NAME).unlink()
    assert fetch_detector() == find_detector() == path


def test_it_cannot_be_fetched(served, monkeypatch):
    with pytest.raises(UserError, match=r"cannot be fetched \(File not found\); get .* as the detector"):
        fetch_detector()
    monkeypatch.setattr(detection, "URL", "http://127.0.0.1:9/nobody/listens")
    with pytest.raises(UserError, match=r"cannot be fetched .*refused"):
        fetch_detector()


def test_the_cache_cannot_be_written(served, tmp_path, monkeypatch):
    (served / NAME).write_bytes(b"the detector")
    monkeypatch.setattr(detection, "SHA256", hashlib.sha256(b"the detector").hexdigest())
    (tmp_path / "cache").write_bytes(b"a file in its place")
    with pytest.raises(UserError, match=r"cannot be written .* set FACENAS_CACHE"):
        fetch_detector()


def test_the_public_address_names_the_pinned_file():
    assert URL.endswith(f"/{NAME}")
    assert len(SHA256) == 64
