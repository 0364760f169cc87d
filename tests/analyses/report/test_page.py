"""The page is whole without a network, holds what was measured, and no text from data acts as anything but text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analyses.report.galleries import ExampleImage, MapRow
from analyses.report.headline import Finding
from analyses.report.missing import Missing
from analyses.report.page import render, write_report
from cachetool.errors import StoreError
from tests.analyses.report.conftest import KEPT, Reported

HOSTILE = '</script><script>alert(1)</script><img src="http://example.org/a.png" onerror="alert(2)">\'"`${1}{{7*7}}'


class Elements(HTMLParser):
    """Tags with attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = False
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

        self.inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


@pytest.fixture(scope="module")
def page(reported: Reported) -> str:
    return reported.page.read_text(encoding="utf-8")


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    for tag, attributes in Elements(page).tags:
        for name in ("src", "href", "action", "poster", "srcset", "xlink:href"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, name, value)


def test_only_the_pages_own_scripts_may_run(page: str) -> None:
    elements = Elements(page)
    policy = next(
        attributes["content"] for tag, attributes in elements.tags if tag == "meta" and "http-equiv" in attributes
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    running = [text for attributes, text in elements.scripts if attributes.get("type") != "application/json"]
    assert len(running) == 2
    for text in running:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_page_shows_what_was_measured(reported: Reported, page: str) -> None:
    report = reported.report
    assert report.findings[0].headline in page
    (cache,) = report.caches
    assert cache.layers == KEPT
    assert [group.name for group in cache.groups] == [
        "token-norms", "effective-rank", "attention-flow", "register-cosine", "patch-similarity"
    ]  # fmt: skip
    assert cache.gallery is not None
    assert cache.gallery.arms == (
        "intact", "registers zero, from 6", "registers mean, from 6", "registers noise, from 6",
        "registers shuffle, from 6", "[CLS] zero, to 11, from 6", "[CLS] mean, to 11, from 6",
    )  # fmt: skip
    assert cache.gallery.without_attention == ("registers noise, from 6",)
    (image, _) = cache.gallery.images
    assert [row.name.split(",")[0] for row in image.rows] == [
        "principal components as colours", "norm of patches", "cosine with intact", "attention of [CLS]"
    ]  # fmt: skip
    missing_attention = [picture is None for picture in image.rows[3].pictures]
    assert missing_attention == [False, False, False, True, False, False, False]
    assert {(row.layer, row.register) for row in cache.cutouts} == {(layer, r) for layer in KEPT for r in range(4)}
    assert [len(pair.carried) for pair in cache.pairs] == [4] * len(cache.pairs)
    assert len(cache.runs) == 7
    assert len(Elements(page).scripts) == 2 + sum(len(group.charts) for group in cache.groups) + len(report.models)


def test_every_picture_says_what_it_shows(page: str) -> None:
    images = [attributes for tag, attributes in Elements(page).tags if tag == "img"]
    assert len(images) > 50
    assert all(attributes.get("alt") for attributes in images)


def test_what_is_lacking_is_listed_with_its_command(reported: Reported, page: str) -> None:
    commands = {one.command for _, one in reported.report.missing}
    assert f"cachetool analyze cka-between-layers {reported.cache}" in commands
    assert f"cachetool analyze register-probes {reported.cache} --train CACHE" in commands
    assert not any("token-norms" in command for command in commands)
    for command in commands:
        assert command in page


def test_names_from_data_stay_text(reported: Reported) -> None:
    report = reported.report
    (cache,) = report.caches
    assert cache.gallery is not None
    image = ExampleImage(HOSTILE, None, (MapRow(HOSTILE, (None,) * len(cache.gallery.arms), HOSTILE, "", ""),))
    gallery = replace(cache.gallery, arms=(HOSTILE, *cache.gallery.arms[1:]), images=(image,))
    model = replace(
        report.models[0], model=HOSTILE, source=HOSTILE, listing=[dict.fromkeys(report.models[0].listing[0], HOSTILE)]
    )
    hostile = replace(
        report,
        title=HOSTILE,
        findings=(Finding(HOSTILE, "cls", "both", HOSTILE, HOSTILE),) * 2,
        models=(replace(model, chart=replace(model.chart, title=HOSTILE, caption=HOSTILE)),),
        caches=(replace(cache, name=HOSTILE, gallery=gallery, facts={HOSTILE: HOSTILE}),),
        missing=((HOSTILE, Missing(HOSTILE, HOSTILE, HOSTILE)),),
    )
    page = render(hostile)
    elements = Elements(page)
    assert "49" not in re.findall(r"\$\{1\}(.*?)<", page)
    assert len(elements.scripts) == len(Elements(reported.page.read_text(encoding="utf-8")).scripts)
    assert not any("onerror" in attributes for _, attributes in elements.tags)
    assert not any((attributes.get("src") or "").startswith("http") for _, attributes in elements.tags)


def test_charts_are_valid_json_inside_the_page(page: str) -> None:
    charts = [text for attributes, text in Elements(page).scripts if attributes.get("type") == "application/json"]
    for text in charts:
        assert json.loads(text)["views"]


def test_the_same_report_gives_the_same_bytes(reported: Reported, page: str) -> None:
    assert render(reported.report) == page


def test_a_page_that_cannot_be_written_leaves_nothing(reported: Reported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be a directory for results"):
        write_report(reported.report, tmp_path / "file" / "report.html")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
