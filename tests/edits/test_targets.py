from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.edits.targets import AllTokens, OutlierPatches, RandomPatches, Target, TokenIndices
from cachetool.errors import InvalidEditError, UnknownNameError
from cachetool.tokens import TokenLayout

INDICES = st.sets(st.integers(0, 300), min_size=1, max_size=12).map(lambda chosen: TokenIndices(tuple(sorted(chosen))))
TARGETS = st.one_of(
    st.builds(Target, st.sampled_from(["cls", "registers", "patches"]), st.just(AllTokens())),
    st.builds(Target, st.sampled_from(["registers", "patches"]), INDICES),
    st.builds(Target, st.just("patches"), st.integers(1, 999).map(RandomPatches)),
    st.builds(Target, st.just("patches"), st.floats(1e-9, 1e9).map(OutlierPatches)),
)


@given(TARGETS)
@settings(deadline=None)
def test_every_target_survives_its_own_text(target):
    assert Target.parse(str(target)) == target


@given(st.text(st.sampled_from("clsregitpah:0123456789,-.omudn"), max_size=20))
@settings(deadline=None)
def test_any_text_is_a_target_or_a_message(text):
    try:
        target = Target.parse(text)
    except (UnknownNameError, InvalidEditError):
        return
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("registers:0,1,2", "registers:0-2"),
        ("registers:2-2", "registers:2"),
        ("registers:3,0-1", "registers:0-1,3"),
        ("patches:random04", "patches:random4"),
        ("patches:outliers:5.0", "patches:outliers"),
        ("patches:outliers:3.50", "patches:outliers:3.5"),
    ],
)
def test_canonical_text(typed, canonical):
    assert str(Target.parse(typed)) == canonical


@pytest.mark.parametrize(
    "text", ["register", "cls:0", "registers:", "registers:random4", "patches:outlier", "", "cls:"]
)
def test_unknown_targets_list_the_known_ones(text):
    with pytest.raises(UnknownNameError, match="patches:outliers:FACTOR"):
        Target.parse(text)


def test_unknown_target_suggests_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean 'registers'"):
        Target.parse("register")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("registers:3-1", "write 1-3"),
        ("patches:0-99999999999", "no model has a token 99999999999"),
        ("patches:random0", "random1 or more"),
        ("patches:outliers:0", "above 0"),
        ("patches:outliers:", "above 0"),
        ("patches:outliers:nan", "above 0"),
        ("patches:outliers:inf", "above 0"),
        ("patches:outliers:5_0", "above 0"),
    ],
)
def test_wrong_parameters_say_what_to_write(text, message):
    with pytest.raises(InvalidEditError, match=message):
        Target.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("registers:3-1", "target 'registers:3-1': the range '3-1' runs backwards; write 1-3"),
        ("patches:outliers:x", "target 'patches:outliers:x': the factor must be a number above 0, not 'x'"),
        ("patches:random0", "target 'patches:random0' draws no patch at all; write random1 or more"),
        (
            f"patches:random{10**25}",
            f"target 'patches:random{10**25}': no model has a token 10000000000000000000..., nor as many",
        ),
        (
            "tokens",
            "there is no target 'tokens'; choose among: cls, registers, registers:INDICES, patches, patches:INDICES, "
            "patches:randomN, patches:outliers, patches:outliers:FACTOR",
        ),
    ],
)
def test_messages_name_the_target(text, message):
    with pytest.raises((UnknownNameError, InvalidEditError)) as caught:
        Target.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("registers", r"needs registers, but the model has no \[CLS\], no registers, 2 x 2 patches"),
        ("registers:1", "choose a target among patches"),
        ("cls", r"needs a \[CLS\] token, but the model has no \[CLS\]"),
        ("patches:1,4-5", "names patches 4-5, .* counted from 0 to 3"),
        ("patches:random5", "draws 5 different patches, .* draw 4 at most"),
    ],
)
def test_tokens_that_a_model_lacks(target, message):
    with pytest.raises(InvalidEditError, match=message):
        Target.parse(target).check(TokenLayout(cls=0, registers=0, rows=2, columns=2))


@pytest.mark.parametrize(("registers", "words"), [(1, "1 register"), (2, "2 registers")])
def test_registers_are_counted_in_words(registers, words):
    with pytest.raises(InvalidEditError) as caught:
        Target.parse("registers:5").check(TokenLayout(cls=1, registers=registers, rows=2, columns=3))
    assert str(caught.value) == (
        f"target 'registers:5' names registers 5, but the model has [CLS], {words}, 2 x 3 patches; "
        f"registers are counted from 0 to {registers - 1}"
    )


def test_register_beyond_the_last_says_how_many_there_are():
    with pytest.raises(InvalidEditError, match=r"names registers 4,7, .* 4 registers, .* counted from 0 to 3"):
        Target.parse("registers:2,4,7").check(TokenLayout(cls=1, registers=4, rows=2, columns=2))
