from __future__ import annotations

import hashlib

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from protclip.errors import ConfigError
from serve.errors import RateLimitError, UnauthorizedError
from serve.keys import Keys, new_key, read_keys
from serve.make_key import main

pytestmark = pytest.mark.unit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def write(tmp_path, *lines: str) -> str:
    path = tmp_path / "keys.txt"
    path.write_text("\n".join(lines))
    return str(path)


def test_a_key_is_admitted_by_its_name_and_no_other_is(tmp_path):
    (alice, alices), (_, bobs) = new_key("alice"), new_key("bob", rate=5)
    file = write(tmp_path, "# a comment", alices, "", f"  {bobs}  ")
    found = read_keys(file)
    assert found is not None and [(key.name, key.rate) for key in found] == [("alice", None), ("bob", 5.0)]
    keys = Keys(found, clock=Clock())
    assert keys.admit(f"Bearer {alice}".encode()) == "alice"
    assert keys.admit(f"bearer  {alice} ".encode()) == "alice"
    digest = hashlib.sha256(alice.encode()).hexdigest()
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        alice,
        f"Basic {alice}",
        f"Bearer {alice}x",
        f"Bearer {digest}",
        "Bearer \xff",
    ):
        with pytest.raises(UnauthorizedError):
            keys.admit(wrong.encode("latin-1"))


def test_the_line_does_not_hold_the_key():
    key, line = new_key("alice", rate=0.5)
    assert key not in line and line == f"alice:{hashlib.sha256(key.encode()).hexdigest()}:0.5"
    assert len(key) > 43 and new_key("alice")[0] != key


def test_a_key_has_as_many_requests_as_its_rate_and_anothers_are_its_own(tmp_path):
    (fast, fasts), (slow, slows) = new_key("fast", rate=3), new_key("slow", rate=0.5)
    clock = Clock()
    keys = Keys(read_keys(write(tmp_path, fasts, slows)) or [], clock=clock)

    def ask(key: str) -> float | None:
        try:
            keys.admit(f"Bearer {key}".encode())
        except RateLimitError as error:
            return error.retry_after_s
        return None

    assert [ask(fast) for _ in range(4)] == [None, None, None, pytest.approx(1 / 3)]  # n - 1, n, n + 1
    assert [ask(slow), ask(slow)] == [None, pytest.approx(2)]  # the other has used up its own alone
    clock.now += 0.34
    assert ask(fast) is None and ask(fast) is not None
    clock.now += 1.9 - 0.34
    assert ask(slow) == pytest.approx(0.1)
    clock.now += 0.11
    assert ask(slow) is None
    clock.now += 1000  # what was not used does not add up
    assert [ask(fast) is None for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0, 5), max_size=50), st.floats(0.1, 50))
def test_in_no_stretch_of_time_has_a_key_more_than_its_rate_and_one_burst(pauses, rate):
    key, line = new_key("a", rate=rate)
    clock, admitted = Clock(), 0
    keys = Keys([_parsed(line)], clock=clock)
    began = clock.now
    for pause in pauses:
        clock.now += pause
        try:
            keys.admit(f"Bearer {key}".encode())
            admitted += 1
        except RateLimitError as error:
            assert 0 < error.retry_after_s <= 1 / rate + 1e-6
    assert admitted <= max(1, rate) + float(line.split(":")[2]) * (clock.now - began) + 1e-6


def _parsed(line: str):
    from serve.keys import _parse

    return _parse(line, "here")


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ((), "holds no key"),
        (("# nothing",), "holds no key"),
        (("alice",), "line 1: after 'alice' comes no SHA-256"),
        (("", "alice:protclip_secret"), "line 2: after 'alice' comes no SHA-256"),
        ((f"al ice:{'0' * 64}",), "'al ice' is no name"),
        ((f"alice:{'0' * 64}:0",), "'0' is no rate"),
        ((f"alice:{'0' * 64}:",), "'' is no rate"),
        ((f"alice:{'0' * 64}:nan",), "'nan' is no rate"),
        ((f"alice:{'0' * 64}", f"alice:{'1' * 64}"), "'alice' stands there twice"),
    ],
)
def test_a_file_that_is_none_is_refused_and_no_secret_is_shown(tmp_path, lines, part):
    with pytest.raises(ConfigError) as caught:
        read_keys(write(tmp_path, *lines))
    assert part in str(caught.value) and "secret" not in str(caught.value)


def test_a_name_with_a_colon_is_what_make_key_refuses():
    with pytest.raises(ConfigError, match="'lab:alice' is no name"):
        new_key("lab:alice")


def test_keys_come_from_the_environment_or_are_none(monkeypatch, tmp_path):
    assert read_keys("none") is None
    monkeypatch.setenv("PROTCLIP_KEYS", new_key("alice")[1] + "\n" + new_key("bob")[1])
    assert [key.name for key in read_keys("environment") or []] == ["alice", "bob"]
    monkeypatch.delenv("PROTCLIP_KEYS")
    with pytest.raises(ConfigError, match="PROTCLIP_KEYS: holds no key"):
        read_keys("environment")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(str(tmp_path / "none"))


def test_the_command_prints_the_line_alone_to_its_output(tmp_path):
    done = CliRunner().invoke(main, ["alice", "--rate", "10"])
    assert done.exit_code == 0
    (key,) = [word for word in done.stderr.split() if word.startswith("protclip_")]
    found = read_keys(write(tmp_path, done.stdout)) or []
    assert Keys(found, clock=Clock()).admit(f"Bearer {key}".encode()) == "alice" and found[0].rate == 10
    assert isinstance(CliRunner().invoke(main, ["al:ice"]).exception, ConfigError)
