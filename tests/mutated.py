"""Damaged inputs of every format for the command line: small valid files, changed at random.

`python tests/mutated.py 5000 [FORMAT ...]` tries so many and prints what ended in anything but an answer or a
sentence; `tests/test_mutated.py` does the same with a few. A finding's number and format give its file again.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export.trained_runs import FACE_ARCH, PLAIN_ARCH, face_network, make_run, plain_network
from PIL import Image

from facenas.cli import main

SECONDS = 20  # that one command may take
ODD = [0, -1, 10**9, 2**63, 1e308, "", "x", None, True, [], {}, [[]], "Infinity", "\x00", "../x", 5000 * "9"]
BYTES = [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"9999999999", b"NaN", b"[[[[", b"\r\n"]


def jpeg(seed: int, side: int = 112) -> bytes:
    """A smooth picture."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BILINEAR).save(out, "JPEG")
    return out.getvalue()


def png(seed: int) -> bytes:
    """The same, as PNG."""
    out = io.BytesIO()
    Image.open(io.BytesIO(jpeg(seed))).save(out, "PNG")
    return out.getvalue()


def zipped() -> bytes:
    """Two people with two images each."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"person {number % 2}/é{number}.jpg", jpeg(number))
    return out.getvalue()


def records() -> tuple[bytes, bytes]:
    """A RecordIO file of four images of two identities, and its index."""
    payloads = [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", 5, 7)]
    payloads += [struct.pack("<IfQQ", 0, n % 2, 0, 0) + jpeg(n) for n in range(4)]
    payloads += [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", 1 + 2 * n, 3 + 2 * n) for n in range(2)]
    body, index = b"", ""
    for key, payload in enumerate(payloads):
        index += f"{key}\t{len(body)}\n"
        body += struct.pack("<II", 0xCED7230A, len(payload)) + payload + bytes(-len(payload) % 4)
    return body, index.encode()


class Seeds:
    """Valid files below `root`; `commands` by format: (the file that is changed, what reads it)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: dict[str, tuple[Path, list[str]]] = {}
        face = self._file("a.jpg", jpeg(0))
        run = make_run(root / "runs/face", "ir", face_network())
        plain = make_run(root / "runs/plain", "plain", plain_network())
        for folder, arch in ((run, FACE_ARCH), (plain, PLAIN_ARCH)):
            about = {"config": {}, "data": {"fingerprint": "x", "in_channels": 1, "image_size": 12}}
            self._file(f"runs/{folder.name}/run.yaml", json.dumps(about).encode())
            best = {"architecture": arch.to_json(), "accuracy": 1.0, "parameters": 9, "macs": 9, "trials": 1}
            self._file(f"runs/{folder.name}/best.json", json.dumps(best).encode())
        onnx, state, safe = root / "a.onnx", root / "a.pt", root / "a.safetensors"
        self._quiet(["export", str(run), "--format", "safetensors", "--out", str(safe)])
        network = {f"model.{key}": value for key, value in face_network().state_dict().items()}
        torch.save({"state_dict": network, "epoch": 3}, state)
        with contextlib.suppress(ImportError):
            self._onnx(onnx)
        embed = ["verify", str(face), str(face), "--threshold", "0.5", "--model"]
        out = ["--overwrite"]
        for name, path in (("onnx", onnx), ("pt", state), ("safetensors", safe)):
            if path.exists():
                self.commands[name] = (path, [*embed, str(path)])
        self.commands["model.pt"] = (run / "checkpoints/model.pt", [*embed, str(run)])
        digit = self._file("digit.png", png(5))
        about_plain = [str(plain), str(digit)]
        self.commands["class model.pt"] = (plain / "checkpoints/model.pt", ["predict", *about_plain])
        self.commands["png"] = (digit, ["predict", *about_plain])
        self.commands["jpg"] = (face, [*embed, str(run)])
        self.commands["run.yaml"] = (plain / "run.yaml", ["report", str(plain)])
        self.commands["best.json"] = (plain / "best.json", ["resume", str(plain)])
        people = self._file("people.zip", zipped())
        store = str(root / "out.zarr")
        self.commands["zip"] = (people, ["data", "import", str(people), store, *out])
        for number in range(3):
            self._file(f"{number}.jpg", jpeg(number))
        rows = self._file("list.csv", b"path,identity\n0.jpg,a\n1.jpg,b\n2.jpg,a\n")
        self.commands["csv"] = (rows, ["data", "import", str(rows), store, *out])
        body, index = records()
        self._file("rec/property", b"2,112,112")
        rec, idx = self._file("rec/train.rec", body), self._file("rec/train.idx", index)
        for name, path in (("rec", rec), ("idx", idx)):
            self.commands[name] = (path, ["data", "import", str(rec.parent), store, *out])
        self._quiet(["enroll", str(people), str(root / "g"), "--model", str(run)])
        known = ["identify", str(face), "--gallery", str(root / "g"), "--model", str(run)]
        for name in ("gallery.json", "templates.npy"):
            self.commands[name] = (root / "g" / name, known)
        pairs = pickle.dumps(([jpeg(n) for n in range(4)], [True, False]), 2)
        bench = b"title: mine\nkind: pairs\nfiles: [lfw.bin]\nfolds: 1\nformula: own\n"
        bin_, yaml = self._file("lfw.bin", pairs), self._file("mine.yaml", bench)
        evaluation = ["eval", "--bench", str(yaml), "--model", str(run), "--data", str(bin_)]
        evaluation += ["--out", str(root / "results")]
        self.commands["bin"], self.commands["bench.yaml"] = (bin_, evaluation), (yaml, evaluation)
        tiny = Path(__file__).parent / "recorded_searches/cifar10-tiny.json"
        log = json.loads(tiny.read_text())
        log["trials"] = log["trials"][:3]
        recorded = self._file("log.json", json.dumps(log).encode())
        self.commands["log.json"] = (recorded, ["replay", str(recorded)])
        preset = self._file(
            "p.yaml", b"seed: 1\nsearch: {min_epochs: 2}\nrecipe: {lr: 0.1}\ndata: {name: no/no}\n"
        )
        self.commands["preset.yaml"] = (preset, ["search", "--preset", str(preset), "--data", "no/no"])
        arch = self._file("arch.json", json.dumps(PLAIN_ARCH.to_json()).encode())
        self.commands["arch.json"] = (arch, ["train", str(arch), "--data", "no/no"])
        self.whole = {name: path.read_bytes() for name, (path, _) in self.commands.items()}

    def _file(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def _quiet(self, arguments: list[str]) -> None:
        code, text = run_command(arguments)
        assert code == 0, text

    def _onnx(self, path: Path) -> None:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        rng = np.random.default_rng(0)
        weights = {"w": rng.normal(0, 0.1, (4, 3, 9, 9)), "s": rng.normal(0, 1, (4, 1, 1))}
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["a"], strides=[8, 8]),
            helper.make_node("PRelu", ["a", "s"], ["b"]),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["y"]),
        ]
        shapes = {"x": ["n", 3, 112, 112], "y": ["n", 4]}
        entries = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
        stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
        graph = helper.make_graph(nodes, "g", entries[:1], entries[1:], stored)
        imports = [helper.make_opsetid("", 13)]
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)


def changed(data: bytes, rng: random.Random) -> bytes:
    """A few bytes or a value changed, cut, doubled or put in."""
    if data[:1] in b"{[" and rng.random() < 0.6:
        return json.dumps(_changed_tree(json.loads(data), rng)).encode()
    text = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        start = rng.randrange(len(text) + 1) if rng.random() < 0.5 else rng.randrange(min(len(text), 200) + 1)
        end = min(len(text), start + rng.choice((1, 4, 30, 1000)))
        match rng.randrange(7):
            case 0:
                text[start:end] = rng.randbytes(end - start)
            case 1:
                del text[start:end]
            case 2:
                text[start:start] = text[start:end]
            case 3:
                del text[start:]
            case 4:
                word = rng.choice(BYTES)
                text[start : start + len(word)] = word
            case 5:
                text[start:start] = rng.choice(BYTES)
            case 6:
                for place in range(start, min(end, start + 2)):
                    text[place] ^= 1 << rng.randrange(8)
    return bytes(text)


def _changed_tree(tree: Any, rng: random.Random) -> Any:
    """One value of a JSON tree is another, is gone, or is nested."""
    places = list(_places(tree))
    if not places:
        return rng.choice(ODD)
    inside, key = rng.choice(places)
    match rng.randrange(4):
        case 0:
            del inside[key]
        case 1:
            inside[key] = [inside[key]]
        case _:
            inside[key] = rng.choice(ODD)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


class StuckError(BaseException):
    """A command took too long."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises StuckError in what takes longer."""

    def stop(*_: Any) -> None:
        raise StuckError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_command(arguments: list[str]) -> tuple[int, str]:
    """(exit code, what it said on standard error, its answer of a replay that differs included)."""
    said, answer, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(answer):
        try:
            main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    if arguments[0] == "replay" and "trials match" in answer.getvalue():
        return code, f"facenas: {answer.getvalue()}"
    return code, said.getvalue()


def fault(seeds: Seeds, name: str, data: bytes) -> str | None:
    """What is wrong with how the command takes this file; None when it answers, or says a sentence."""
    path, arguments = seeds.commands[name]
    path.write_bytes(data)
    before = {entry.name for entry in seeds.root.iterdir()}

    try:
        with limited(SECONDS):
            code, said = run_command(arguments)
    except StuckError:
        return f"takes more than {SECONDS} seconds"
    except BaseException:
        return traceback.format_exc()
    finally:
        path.write_bytes(seeds.whole[name])
    left = {entry.name for entry in seeds.root.iterdir()} - before
    for entry in left:
        target = seeds.root / entry
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    told = [line for line in said.splitlines() if line.startswith("facenas: ")]
    if "Traceback" in said or "fault of facenas" in said:
        return said
    if code and (code not in (1, 2) or not told):
        return f"exit code {code}, without a sentence: {said}"
    if code and left - {"results"}:
        return f"exit code {code}, and it leaves {left}"
    return None


def findings(count: int, names: list[str], seed: int = 0) -> Iterator[tuple[str, int, str]]:
    """(format, number, fault) of so many files; formats take turns, and a number always gives the same file."""
    with tempfile.TemporaryDirectory() as folder:
        seeds = Seeds(Path(folder))
        known = [name for name in seeds.commands if not names or name in names]
        for number in range(seed, seed + count):
            name = known[number % len(known)]
            data = changed(seeds.whole[name], random.Random(f"{name} {number}"))
            if found := fault(seeds, name, data):
                yield name, number, found.replace(folder, "")


def _report(show: Callable[..., object] = print) -> None:
    count, *names = sys.argv[1:]
    kinds: dict[str, int] = {}
    for name, number, found in findings(int(count), names):
        last = re.sub(r"\d+", "N", found.strip().splitlines()[-1])[:200]
        kind = f"{name}: {last}"
        if kind not in kinds:
            show(f"--- {name} {number}\n{found[-3000:]}", flush=True)
        kinds[kind] = kinds.get(kind, 0) + 1
    show("\n".join(f"{often:6d} {kind}" for kind, often in sorted(kinds.items())) or "no findings")


if __name__ == "__main__":
    _report()
