"""`docs/reference/errors.md`: every exception has a section, and its example is what the code raises today."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cachetool
from cachetool import errors, places, removing
from cachetool.backbones import load
from cachetool.backbones.catalogue import resolve
from cachetool.datasets import open_dataset
from cachetool.distributing.inspecting import agreed
from cachetool.distributing.workers import Description
from cachetool.extraction.buffers import BlockBuffer
from cachetool.extraction.halving import Halving
from cachetool.packages import PAGES, require
from cachetool.plugins import load_announced
from cachetool.query import runs
from cachetool.store import StoreReader, StoreWriter
from cachetool.tokens import TokenLayout
from tests.reference.quick import quick

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
RAISED = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, Exception) and one.__module__ == errors.__name__
}
CACHE = Path("activations/shapes/tiny-reg.zarr")

Example = Callable[[pytest.MonkeyPatch], Any]
EXAMPLES: dict[str, Example] = {}
"""What brings each exception about, in a folder that holds a small cache."""


def example(raises: type[Exception]) -> Callable[[Example], Example]:
    def remember(function: Example) -> Example:
        EXAMPLES[raises.__name__] = function
        return function

    return remember


@example(errors.UnknownNameError)
def _misspelt(_: pytest.MonkeyPatch) -> None:
    cachetool.Edit("registers", "shufle", 6)


@example(errors.InvalidEditError)
def _beyond_the_model(_: pytest.MonkeyPatch) -> None:
    cachetool.replay(CACHE, cachetool.Edit("registers", "zero", 13))


@example(errors.MissingDataError)
def _nothing_there(_: pytest.MonkeyPatch) -> None:
    places.find_cache(None, "results")


@example(errors.WeightsError)
def _no_weights(_: pytest.MonkeyPatch) -> None:
    Path("model.pth").write_text("a page that says that the file has moved")
    load("tiny-reg", weights=Path("model.pth"))


@example(errors.UnsupportedModelError)
def _oblong(_: pytest.MonkeyPatch) -> None:
    resolve("timm:vit_base_patch16_sapiens2")


@example(errors.DatasetError)
def _no_masks(_: pytest.MonkeyPatch) -> None:
    Path("photos/cat").mkdir(parents=True)
    Path("photos/cat/0.jpg").write_bytes(b"")
    open_dataset("imagefolder:photos").mask(0)


@example(errors.ImageError)
def _no_image(_: pytest.MonkeyPatch) -> None:
    Path("photos/cat").mkdir(parents=True)
    Path("photos/cat/0.jpg").write_text("<html>not found</html>")
    cachetool.extract("tiny-reg", "imagefolder:photos", workers=0)


@example(errors.StoreError)
def _not_ours(_: pytest.MonkeyPatch) -> None:
    Path("photos").mkdir()
    removing.remove_store(Path("photos"))


@example(errors.IncompleteError)
def _not_stored(_: pytest.MonkeyPatch) -> None:
    StoreReader(CACHE).read("registers", 3, 0, 4)


@example(errors.DamagedError)
def _a_flipped_bit(_: pytest.MonkeyPatch) -> None:
    shard = CACHE / "patches" / "c.0.0.0.0"
    data = bytearray(shard.read_bytes())
    data[99] ^= 1
    shard.write_bytes(data)
    StoreReader(CACHE).read("patches", 6, 0, 4)


@example(errors.KeyMismatchError)
def _another_dtype(_: pytest.MonkeyPatch) -> None:
    cachetool.extract("tiny-reg", "shapes", limit=4, dtype="bfloat16", workers=0)


def _swap_two_images() -> None:
    """Write registers of state 6 anew, as no extraction would."""
    values = StoreReader(CACHE).read("registers", 6, 0, 4).copy()
    values[[0, 1]] = values[[1, 0]]
    StoreWriter(CACHE).write_block(0, {"registers": values[np.newaxis]}, (6,))


@example(errors.StaleRunWarning)
def _other_values(_: pytest.MonkeyPatch) -> None:
    cachetool.replay(CACHE, cachetool.Edit("cls", "zero", 6))
    _swap_two_images()
    runs(CACHE)


@example(errors.CertificateError)
def _tampered(_: pytest.MonkeyPatch) -> None:
    _swap_two_images()
    cachetool.replay(CACHE, cachetool.Edit("cls", "zero", 6))


@example(errors.RangeError)
def _too_large(_: pytest.MonkeyPatch) -> None:
    layout = TokenLayout(cls=1, registers=0, rows=1, columns=1)
    buffer = BlockBuffer(layout, 2, (9,), ("cls", "patches"), "float16", 1)
    buffer.store(9, torch.tensor([0]), torch.full((1, 2, 2), 70_000.0), ["cat/0.jpg"])
    buffer.check()


@example(errors.OutOfMemoryError)
def _not_even_one(_: pytest.MonkeyPatch) -> None:
    def compute(_: slice) -> None:
        raise MemoryError("cannot allocate 3.1 GB")

    Halving(1).run(1, compute)


@example(errors.ClusterError)
def _of_two_kinds(patch: pytest.MonkeyPatch) -> None:
    processor = {"device": "cpu", "kernel": "cpu AVX2", "machine": "x86_64"}
    card = {"device": "NVIDIA T4", "kernel": "cuda 12.8", "machine": "x86_64"}
    found = {"a": Description(processor, 8), "b": Description(card, 128)}
    agreed(found, {"a": "tcp://10.0.0.1:4000 (worker 0)", "b": "tcp://10.0.0.2:4000 (worker 1)"})


@example(errors.MissingPackageError)
def _not_installed(patch: pytest.MonkeyPatch) -> None:
    class Blocked:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == "plotly":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        patch.delitem(sys.modules, name)
    patch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    require("cachetool report", PAGES, "report")


@example(errors.BrokenPluginWarning)
def _of_another_version(patch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("sparsity", "my_tokens.sparsity:sparsity", "cachetool.analyses")
    patch.setattr("cachetool.plugins.entry_points", lambda group: [point])
    load_announced("cachetool.analyses", "analysis", callable)


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of four images with two states."""
    root = tmp_path_factory.mktemp("errors") / "activations"
    with quick():
        cachetool.extract("tiny-reg", "shapes", limit=4, layers=(6, 12), dtype="float32", root=root, workers=0)
        yield root


def message(name: str) -> str:
    """What the example of an exception says."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RAISED[name]) as raised:
            EXAMPLES[name](patch)
    assert raised.type is RAISED[name], "the example of a class is no subclass"
    return str(raised.value).replace(f"{Path.cwd()}/", "")


def of_any_machine(text: str) -> str:
    """Without what is another number or name on another processor, or with other versions of what computes."""
    text = re.sub(r"\.[0-9a-f]{8}\.zarr", ".DIGEST.zarr", text)
    text = re.sub(r"(differs from the stored state \d+ by) \S+,", r"\1 NUMBER,", text)
    return re.sub(r"this device \([^)]*\)", "this device (KERNEL)", text)


def test_every_exception_has_a_section_and_an_example() -> None:
    assert list(SECTIONS) == list(RAISED), "in the order of cachetool/errors.py"
    assert set(EXAMPLES) == set(RAISED) - {"CachetoolError"}


@pytest.mark.parametrize("name", RAISED)
def test_a_section_names_the_built_in(name: str) -> None:
    built_in = next(one for one in RAISED[name].__mro__ if one.__module__ == "builtins")
    assert f"`{built_in.__name__}`" in SECTIONS[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_is_what_the_code_raises(
    name: str, activations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(activations, tmp_path / "activations")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CACHETOOL_ROOT", raising=False)
    (shown,) = re.findall(r"(?:^    .*\n)+", SECTIONS[name], re.MULTILINE)
    assert of_any_machine(message(name)) == of_any_machine(textwrap.dedent(shown).rstrip("\n"))
