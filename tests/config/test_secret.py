"""A secret is not shown by accident."""

import pickle

import pytest

from config.secret import Secret


def test_shows_itself_only_when_asked_to() -> None:
    secret = Secret("hunter2")
    assert secret.reveal() == "hunter2"
    shown = f"{secret} {secret!r} {secret!s:>10} {[secret]} %s" % secret
    assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_compares_by_its_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("ä").matches("ä")
    assert not Secret("a").matches("\ud800")
