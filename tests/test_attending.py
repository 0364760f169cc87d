"""Attention from stored states: equal to what the model itself computes, and refused where a state is lacking."""

from __future__ import annotations

import pickle
from pathlib import Path

import dask
import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
import xarray as xr

import cachetool
from cachetool import Edit
from cachetool.backbones import load
from cachetool.datasets import open_dataset
from cachetool.errors import IncompleteError, InvalidEditError, UnknownNameError
from tests.reference.plain_models import save_weights, write_folder
from tests.reference.quick import quick


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return cachetool.extract("tiny-reg", "shapes", limit=5, dtype="float32", root=tmp_path_factory.mktemp("root"))


def probabilities_inside(model: torch.nn.Module, images: torch.Tensor) -> npt.NDArray[np.float32]:
    """What a plain forward pass gives to each block's attention dropout, (image, layer, head, query, key)."""
    seen: list[torch.Tensor] = []
    handles = []
    for block in model.blocks:  # type: ignore[union-attr]
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _module, given, _found: seen.append(given[0])))
    with torch.inference_mode():
        model(images)
    for handle in handles:
        handle.remove()
    return torch.stack(seen, dim=1).numpy()


def test_equals_the_attention_of_the_model(cache: xr.Dataset) -> None:
    transform = cachetool.open_annotations(cache).transform
    images = np.stack([transform.apply(open_dataset("shapes").decode(image)) for image in range(5)])
    expected = probabilities_inside(load("tiny-reg").model, torch.from_numpy(images))
    found = cachetool.attention(cache)
    assert found.dims == ("image", "layer", "head", "query", "key")
    assert found.layer.values.tolist() == list(range(12))
    assert found.image_id.values.tolist() == cache.image_id.values.tolist()
    assert found.query_type.values.tolist() == ["cls"] + 4 * ["registers"] + 64 * ["patches"]
    np.testing.assert_allclose(found.values, expected, atol=2e-6)
    np.testing.assert_array_equal(cachetool.attention(cache, [11, 3]).values, found.values[:, [11, 3]])


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3.lvd1689m"])
def test_equals_the_attention_of_other_families(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    name = architecture.split(".")[0]
    model = timm.create_model(name, num_classes=0, img_size=64).eval()
    weights = save_weights(model, tmp_path / "weights.safetensors")
    write_folder(tmp_path / "photos", classes=1, per_class=2)
    with quick():
        small = cachetool.extract(
            f"timm:{name}", f"imagefolder:{tmp_path / 'photos'}", weights=weights, image_size=64, dtype="float32",
            root=tmp_path, workers=0, layers=[2],
        )  # fmt: skip
        found = cachetool.attention(small)
    dataset = open_dataset(f"imagefolder:{tmp_path / 'photos'}")
    transform = cachetool.open_annotations(small).transform
    images = torch.from_numpy(np.stack([transform.apply(dataset.decode(image)) for image in range(2)]))
    expected = probabilities_inside(model, images)[:, [2]]
    np.testing.assert_allclose(found.values, expected, atol=2e-6)


def test_nothing_is_computed_before_it_is_asked_for(cache: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = cachetool.attention(cache, 3)
    reads: list[tuple[int, int]] = []
    original = cachetool.store.StoreReader.read_state

    def counted(self: object, layer: int, start: int, stop: int) -> npt.NDArray[np.float32]:
        reads.append((layer, stop - start))
        return np.asarray(original(self, layer, start, stop))  # type: ignore[arg-type]

    monkeypatch.setattr(cachetool.store.StoreReader, "read_state", counted)
    lazy.mean().compute()
    assert reads == [(3, 5)]


def test_a_run_shows_attention_after_its_edit(cache: xr.Dataset) -> None:
    knocked = cachetool.replay(cache, Edit("registers", "knockout", from_layer=4, until_layer=5), keep=[5, 6, 12])
    found = cachetool.attention(knocked)
    assert found.layer.values.tolist() == [5, 6]
    registers = (found.key_type == "registers") & (found.query_type != "registers")
    shares = found.where(registers, 0).sum("key").max(("image", "head", "query")).values
    assert shares[0] == 0
    assert shares[1] > 0.01
    zeroed = cachetool.replay(cache, Edit("registers", "zero", from_layer=4), keep=[4, 12])
    block = load("tiny-reg").model.blocks[4].attn
    state = torch.from_numpy(cache.patches.sel(layer=4).values), torch.from_numpy(cache.cls.sel(layer=4).values)
    sequence = torch.cat([state[1][:, None], torch.zeros(5, 4, 96), state[0]], dim=1)
    with torch.inference_mode():
        norm = load("tiny-reg").model.blocks[4].norm1
        queries, keys, _ = block.qkv(norm(sequence)).reshape(5, 69, 3, block.num_heads, -1).permute(2, 0, 3, 1, 4)
        expected = (queries @ keys.transpose(-2, -1) * block.scale).softmax(-1)
    np.testing.assert_allclose(cachetool.attention(zeroed, 4).isel(layer=0).values, expected, atol=2e-6)


def test_removed_tokens_are_neither_keys_nor_queries(cache: xr.Dataset) -> None:
    removed = cachetool.replay(cache, Edit("registers", "remove", from_layer=4), keep=[6, 12])
    found = cachetool.attention(removed, 6).isel(layer=0)
    own = found.query_type == "registers"
    assert bool(found.isel(query=own).isnull().all())
    rest = found.isel(query=~own)
    assert float(rest.isel(key=(rest.key_type == "registers").values).max()) == 0
    np.testing.assert_allclose(rest.sum("key"), 1, atol=1e-5)


def test_chunks_give_the_same_values(cache: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cachetool.attention(cache, 7)
    monkeypatch.setattr("cachetool.attending.CHUNK_BYTES", 2 * 4 * whole.sizes["head"] * 69**2)
    parts = cachetool.attention(cache, 7)
    assert parts.chunks is not None
    assert parts.chunks[0] == (2, 2, 1)
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-6)


def test_an_opened_store_is_taken_as_it_was_restricted(cache: xr.Dataset) -> None:
    whole = cachetool.attention(cache)
    part = cachetool.attention(cache.isel(image=[4, 1]).sel(layer=[0, 3, 12]))
    assert part.layer.values.tolist() == [0, 3]
    assert part.image_id.values.tolist() == cache.image_id.values[[4, 1]].tolist()
    np.testing.assert_array_equal(part.values, whole.sel(layer=[0, 3]).values[[4, 1]])


def test_what_cannot_be_computed_is_refused(cache: xr.Dataset) -> None:
    with pytest.raises(InvalidEditError, match="blocks run from 0 to 11, found 12, 13"):
        cachetool.attention(cache, [3, 12, 13])
    run = cachetool.replay(cache, Edit("registers", "zero", from_layer=9))
    with pytest.raises(IncompleteError, match=r"holds none as the input of a block; replay it with `--keep`"):
        cachetool.attention(run)
    with pytest.raises(IncompleteError, match=r"lacks 3, 4 and holds none"):
        cachetool.attention(run, [3, 4])


def test_a_device_that_is_not_there(cache: xr.Dataset) -> None:
    """The model goes there when it is first run, which may be in another process."""
    lazy = cachetool.attention(cache, 3, device="abacus")
    with pytest.raises(UnknownNameError, match="--device abacus: torch cannot use it here"):
        lazy.compute()


def test_what_travels_is_what_opens_the_model_again(cache: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = cachetool.attention(cache, 3)
    expected = lazy.values
    packed = pickle.dumps(dict(lazy.data.__dask_graph__()))
    assert len(packed) < 2000  # of a model with 5 MB of weights
    monkeypatch.chdir("/")
    graph = pickle.loads(packed)
    np.testing.assert_array_equal(dask.get(graph, next(iter(graph))), expected)
