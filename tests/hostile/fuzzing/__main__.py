"""Fuzz what is read from strangers, guided by the branches that inputs reach.

    python -m tests.hostile.fuzzing root --seconds 300
    python -m tests.hostile.fuzzing root --input corpora/root-crash-0123

It needs atheris (`pip install 'cachetool[fuzz]'`, Linux). A finding ends the run with its traceback and another exit
code than 0; its input is kept beside the folder of inputs. With `--input` one input alone is read, without atheris.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
import tempfile
from pathlib import Path

INSTRUMENTED = ["cachetool", "analyses", "PIL", "tomllib"]
"""Whose branches guide: cachetool, and what parses in Python for it."""


def fuzz(name: str, seconds: int, corpora: Path, scratch: Path) -> None:
    """Fuzz a target from its sound inputs and those that earlier runs found; ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.hostile.conftest import little_memory
        from tests.hostile.fuzzing.catalogue import make
        from tests.hostile.fuzzing.target import run

        target = make(name, scratch)
        for start in target.starts:  # with what is imported when it is first needed
            assert run(target, start), "a sound input is refused"
    corpus = corpora / name
    corpus.mkdir(parents=True, exist_ok=True)
    for index, start in enumerate(target.starts):
        (corpus / f"start-{index}").write_bytes(start)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        chosen = random.Random(seed)
        changed = target.changed(data, chosen.choice) if chosen.random() < 0.5 else data
        return changed if changed != data and len(changed) <= size else bytes(atheris.Mutate(data, size))

    longest = 4 * max(map(len, target.starts))
    options = (f"-max_total_time={seconds}", f"-max_len={longest}", f"-artifact_prefix={corpora / name}-")
    # The system bounds memory, before it is taken; `run` bounds time by the processor's, this one what never ends.
    options += ("-rss_limit_mb=0", "-timeout=1200", "-print_final_stats=1")
    with little_memory():
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: run(target, data), custom_mutator=mutate)
        atheris.Fuzz()


def read_alone(name: str, file: Path, scratch: Path) -> None:
    """Read one input, which ends with the traceback of a finding."""
    from tests.hostile.conftest import little_memory
    from tests.hostile.fuzzing.catalogue import make
    from tests.hostile.fuzzing.target import run

    target = make(name, scratch)
    with little_memory():
        print("read" if run(target, file.read_bytes()) else "refused")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzzing", description=str(__doc__).splitlines()[0])
    parser.add_argument("target", help="what to harm: a name of tests/hostile/fuzzing/catalogue.py")
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz [default: 60]")
    parser.add_argument(
        "--corpora", type=Path, default=Path("corpora"), help="where inputs that reach new branches, and findings, stay"
    )
    parser.add_argument("--input", type=Path, help="read this input alone")
    given = parser.parse_args()
    if given.input is None and importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install 'cachetool[fuzz]' on Linux")
    with tempfile.TemporaryDirectory() as folder:
        if given.input is not None:
            read_alone(given.target, given.input, Path(folder))
            return 0
        process = os.fork()  # atheris ends its process, and the folder has to be removed
        if process == 0:
            fuzz(given.target, given.seconds, given.corpora, Path(folder))
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
