"""Whether the parts of a root document agree: layout, sizes and the arrays that every store of tokens has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachetool.store.documents import chunk_shape, codec_names, is_integer, shown
from cachetool.store.dtypes import DTYPES, zarr_data_type
from cachetool.store.format import Geometry
from cachetool.tokens import MOST_TOKENS

MOST_CHANNELS, MOST_STATES, MOST_IMAGES_OF_A_BLOCK = 2**20, 2**12, 2**20
"""No model has as many; a document that claims more is refused before anything of that size is made."""

ALWAYS = ("image_id", "content_sha256", "layer", "complete", "readable")
"""Arrays that every store of tokens has."""

_DATA_TYPES = {
    "image_id": "string",
    "content_sha256": "string",
    "class_name": "string",
    "token_type": "string",
    "label": "int64",
    "layer": "int64",
    "readable": "bool",
    "complete": "bool",
    "norm_weight": "float32",
    "norm_bias": "float32",
}

_DIMENSIONS = {
    "image_id": ["image"],
    "content_sha256": ["image"],
    "class_name": ["image"],
    "label": ["image"],
    "readable": ["image"],
    "layer": ["layer"],
    "complete": ["block", "token_type", "layer"],
    "norm_weight": ["channel"],
    "norm_bias": ["channel"],
}


def entry_problems(about: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[str]:
    """What of the entries of a store, and of the arrays that it needs, is missing or of another kind than expected."""
    layout = about.get("layout")
    if not isinstance(layout, Mapping) or set(layout) != {"cls", "registers", "rows", "columns"}:
        return [f"layout must hold cls, registers, rows and columns, found {shown(layout)}"]
    limits = [("cls", layout["cls"], 0, 1)]
    limits += [(name, layout[name], 0, MOST_TOKENS) for name in ("registers", "rows", "columns")]
    limits += [("channels", about.get("channels"), 1, MOST_CHANNELS)]
    limits += [("block", about.get("block"), 1, MOST_IMAGES_OF_A_BLOCK)]
    problems = [
        f"{name} must be an integer from {low} to {high}, found {shown(value)}"
        for name, value, low, high in limits
        if not is_integer(value, low, high)
    ]
    if not problems and layout["registers"] + layout["rows"] * layout["columns"] >= MOST_TOKENS:
        problems.append(f"a layout of {shown(dict(layout))} has more than {MOST_TOKENS} tokens")
    if about.get("dtype") not in DTYPES:
        problems.append(f"dtype must be one of {', '.join(DTYPES)}, found {shown(about.get('dtype'))}")
    problems += [f"the array {name} is missing" for name in ALWAYS if name not in arrays]
    problems += [
        f"{name} must be {data_type}, found {arrays[name]['data_type']}"
        for name, data_type in _DATA_TYPES.items()
        if name in arrays and arrays[name]["data_type"] != data_type
    ]
    problems += [
        f"{name} must have the dimensions {', '.join(expected)}, found {shown(arrays[name].get('dimension_names'))}"
        for name, expected in _DIMENSIONS.items()
        if name in arrays and arrays[name].get("dimension_names") != expected
    ]
    if "layer" in arrays and arrays["layer"]["shape"] and not 1 <= arrays["layer"]["shape"][0] <= MOST_STATES:
        problems.append(f"a store has 1 to {MOST_STATES} states, found {arrays['layer']['shape'][0]}")
    return problems


def size_problems(geometry: Geometry, arrays: Mapping[str, Any]) -> list[str]:
    """Where arrays have other sizes, or shards other chunks, than the geometry of their store asks for."""
    layout = geometry.layout
    sizes = {
        "image": geometry.images,
        "block": geometry.blocks,
        "layer": len(geometry.layers),
        "token_type": len(layout.types),
        "register": layout.registers,
        "patch": layout.patches,
        "channel": geometry.channels,
    }
    problems = [
        f"{name} has {size} along {dimension}, the store {sizes[dimension]}"
        for name, array in arrays.items()
        for dimension, size in zip(array.get("dimension_names", []), array["shape"], strict=True)
        if sizes.get(dimension, size) != size
    ]
    for name, array in arrays.items():
        sharded = codec_names(array)[0] == "sharding_indexed"
        if sharded != (name in geometry.token_types):
            problems.append(f"{name} must {'not ' if sharded else ''}be stored in shards")
        elif sharded:
            spec = geometry.array(name)
            configuration = array["codecs"][0]["configuration"]
            expected = {
                "dimension_names": list(spec.dimensions),
                "data_type": zarr_data_type(geometry.dtype),
                "shards": [geometry.block, len(geometry.layers), *spec.inner_shape],
                "chunks": [spec.chunk_images(geometry.block), 1, *spec.inner_shape],
            }
            found = {
                "dimension_names": array["dimension_names"],
                "data_type": array["data_type"],
                "shards": chunk_shape(array),
                "chunks": configuration.get("chunk_shape"),
            }
            problems += [
                f"{name}: {part} must be {wanted}, found {shown(found[part])}"
                for part, wanted in expected.items()
                if found[part] != wanted
            ]
    return problems
