from __future__ import annotations

from analyses.study.needs import calibration_states, passes, replay_states, training_states
from cachetool import Edit
from cachetool.tokens import TokenLayout

LAYOUT = TokenLayout(cls=1, registers=4, rows=8, columns=8)
ALL = tuple(range(1, 13))


def test_a_replay_needs_its_whole_first_state_and_the_last() -> None:
    states = replay_states([Edit("registers", "zero", 3), Edit("cls", "none", 6)], LAYOUT, 12)
    assert states == dict.fromkeys(("cls", "registers", "patches"), (3, 6, 12))
    assert passes(states) == [(("cls", "registers", "patches"), (3, 6, 12))]


def test_sustained_shuffles_need_their_tokens_at_every_edited_state() -> None:
    states = replay_states([Edit("registers", "shuffle", 1), Edit("registers", "zero", 6)], LAYOUT, 12)
    assert states == {"cls": ALL, "registers": ALL, "patches": (1, 6, 12)}
    assert passes(states) == [(("cls", "registers"), ALL), (("patches",), (1, 6, 12))]
    patches = replay_states([Edit("patches:random4", "shuffle", 9, until_layer=11)], LAYOUT, 12)
    assert patches == {"cls": (9, 12), "registers": (9, 12), "patches": (9, 10, 11, 12)}


def test_a_training_cache_holds_what_heads_read_and_refits_replay() -> None:
    assert training_states([], ("cls", "patches"), LAYOUT, 12) == {"cls": (12,), "patches": (12,)}
    refit = training_states([Edit("cls", "zero", 1)], ("cls",), LAYOUT, 12)
    assert refit == dict.fromkeys(("cls", "registers", "patches"), (1, 12))


def test_a_calibration_holds_what_is_drawn_and_where_distances_are_measured() -> None:
    edits = [Edit("registers", "zero", 3), Edit("cls", "none", 1), Edit("registers", "knockout", 2)]
    assert calibration_states(edits, 12) == {"registers": (3,)}
    both = calibration_states([*edits, Edit("cls", "mean", 9, until_layer=11)], 12)
    assert both == {"cls": (3, 9, 10, 11), "registers": (3, 9, 10, 11)}
    assert calibration_states([Edit("cls", "none", 1)], 12) == {}
