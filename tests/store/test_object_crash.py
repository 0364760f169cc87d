"""Writers in an object store that are killed or refused: what was finished stays."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cachetool.errors import StoreError
from cachetool.store import StoreReader, StoreWriter, create

KILLS = int(os.environ.get("CACHETOOL_KILLS", "6"))


def test_a_block_is_as_it_was_where_a_shard_cannot_be_put(object_proxy, object_root, example) -> None:
    path = object_root / "a.zarr"
    create(path, example.spec)
    writer = StoreWriter(path)
    writer.write_block(1, example.arrays(1, [1], example.spec.token_types, 10), [1])

    def refused(method: str, target: str) -> str | None:
        return "deny" if method == "PUT" and "patches/c.1" in target else None

    more = example.arrays(1, [0, 1], example.spec.token_types, 10)
    with object_proxy.spoiling(refused), pytest.raises(StoreError, match=r"patches/c\.1.*access is denied"):
        writer.write_block(1, more, [0, 1])
    for name in example.spec.token_types:
        expected = example.values[name][4:8]
        np.testing.assert_array_equal(StoreReader(path).read(name, 1, 4, 8), expected[:, 1])
    writer.write_block(1, more, [0, 1])
    for name in example.spec.token_types:
        np.testing.assert_array_equal(StoreReader(path).read(name, 0, 4, 8), example.values[name][4:8, 0])


CHILD = """
import sys
from cachetool.store import StoreWriter, create
from tests.store.conftest import make_example
path, images, layers = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])
from cachetool.errors import StoreError
example = make_example(images=images, channels=64)
try:
    create(path, example.spec)
except StoreError as error:
    assert "already" in str(error), error
example.fill(path, layers)
"""


@pytest.mark.slow
def test_a_process_killed_at_random_moments(object_root, tmp_path, kit) -> None:
    example = kit.make_example(images=80, channels=64)
    create(tmp_path / "whole.zarr", example.spec)
    for layers in ([1, 2], [0, 1, 2, 3]):
        example.fill(tmp_path / "whole.zarr", layers)
    expected = kit.tree(tmp_path / "whole.zarr")
    moments, kills, rounds = random.Random(0), 0, 0
    while kills < KILLS:
        path, rounds = object_root / f"round-{rounds}.zarr", rounds + 1
        for layers in ("[1, 2]", "[0, 1, 2, 3]"):
            finished: dict[str, bytes] = {}
            while True:
                child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), "80", layers])
                if kills < KILLS:
                    blocks = len(finished) + moments.randrange(8)
                    while child.poll() is None and len(list((path / ".cachetool" / "blocks").iterdir())) < blocks:
                        time.sleep(0.01)
                    time.sleep(moments.uniform(0, 0.1))
                    if child.poll() is None:
                        child.send_signal(signal.SIGKILL)
                        kills += 1
                code = child.wait()
                if (path / "zarr.json").is_file():
                    now = kit.objects(path)
                    records = {name: content for name, content in now.items() if "/blocks/" in name}
                    held = {block: json.loads(content)["layers"] for block, content in records.items()}
                    for name, layers_before in finished.items():
                        kept = all(set(old) <= set(held[name][kind]) for kind, old in layers_before.items())
                        assert kept, "something finished was lost"
                    finished = held
                if code == 0:
                    break
        assert kit.objects(path) == expected
        example.check(path)
