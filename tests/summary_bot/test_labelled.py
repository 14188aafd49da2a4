"""The labelled rooms of `make bench-summaries`: nothing hidden is said, no attack gets through, little is missed."""

from __future__ import annotations

import pytest

from appservices.summary_bot.engines.extractive.process import ExtractiveEngine
from benchmarks.summaries import SETS, Score, load_rooms, score_room


@pytest.fixture(scope="module")
async def totals() -> dict[str, Score]:
    """The score of each set."""
    engine, found = ExtractiveEngine(), {name: Score() for name in SETS}
    try:
        for room in load_rooms():
            found[room["set"]].add(await score_room(engine, room))
    finally:
        await engine.close()
    return found


@pytest.mark.parametrize("of_set", SETS)
def test_labelled_rooms(totals: dict[str, Score], of_set: str) -> None:
    score = totals[of_set]
    assert (score.leaked, score.shown, score.through) == (0, 0, 0)
    assert score.cited == score.lines > 0
    assert score.right >= 0.85 * score.picked
    for label in score.wanted:
        assert score.found[label] >= 0.7 * score.wanted[label] > 0
