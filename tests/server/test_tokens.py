"""The estimate that replies are cut by: never below what o200k counts, and not so far above that nothing is said."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from mcp_server.server.paging import Reply, clip, compact, cost, fitting, page
from mcp_server.server.tokens import tokens
from tests.tokens import count

ROOT = Path(__file__).parents[2]
PROSE = [*ROOT.glob("*.md"), *ROOT.glob("mcp_server/*.md"), *ROOT.glob("skills/*/SKILL.md")]
CODE = [*ROOT.glob("mcp_server/**/*.py"), *ROOT.glob("tests/server/*.py"), ROOT / "pyproject.toml"]
OTHER_SCRIPTS = [
    "增加用户登录功能并且支持多种语言的界面显示, 修复订单状态在支付失败之后没有更新的问题",
    "データベースの接続プールを改善し、テストを追加する。古い設定は読み込まない",
    "사용자 인증 모듈을 추가하고 테스트를 작성한다. 이전 설정은 읽지 않는다",
    "Добавить поддержку нескольких языков в интерфейс пользователя и проверить её тестами",
    "إضافة دعم اللغات المتعددة إلى واجهة المستخدم",
    "उपयोगकर्ता इंटरफ़ेस में कई भाषाओं के लिए समर्थन जोड़ें",
    "Größenänderung für Überschriften und Straßen prüfen, auch an den Rändern",
    "Ajouter la prise en charge des thèmes à l'écran d'accueil, y compris ceux d'été",
    "🚀 Ship it 🎉✅ 🔥 👩‍💻 ❤️ then celebrate 🥳🥳🥳",
]
WORDS = sorted({word for path in PROSE for word in path.read_text("utf-8").split()})


def _slices(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, max(1, len(text) - size // 2), size)]


@pytest.mark.parametrize("size", [400, 1600])
@pytest.mark.parametrize("paths", [PROSE, CODE], ids=["prose", "code"])
def test_prose_and_code_cost_no_more_than_estimated_as_they_are_and_as_json(paths: list[Path], size: int) -> None:
    for path in paths:
        for said in _slices(path.read_text("utf-8"), size):
            assert count(said) <= tokens(said), said
            assert count(compact(said)) <= cost(said), said


def test_the_estimate_of_prose_is_less_than_twice_the_count() -> None:
    """A bound that is too careful would send half of what it may."""
    for path in PROSE:
        said = path.read_text("utf-8")
        whole = sum(count(part) for part in _slices(said, 4_000))
        assert whole <= tokens(said) < 2 * whole


@pytest.mark.parametrize("said", OTHER_SCRIPTS)
def test_other_scripts_cost_no_more_than_estimated(said: str) -> None:
    assert count(said) <= tokens(said)


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=30, max_size=60))
def test_hashes_and_paths_of_them_cost_no_more_than_estimated(seeds: list[bytes]) -> None:
    shas = [hashlib.sha1(seed, usedforsecurity=False).hexdigest() for seed in seeds]
    for said in (" ".join(shas), ", ".join(sha[:12] for sha in shas), "/".join(sha[:7] for sha in shas)):
        assert count(said) <= tokens(said)


@given(st.lists(st.sampled_from(WORDS), min_size=12, max_size=200))
def test_words_of_ours_in_any_order_cost_no_more_than_estimated(words: list[str]) -> None:
    for said in (" ".join(words), compact(words), compact({word: [word] for word in words})):
        assert count(said) <= tokens(said)


@given(st.text(min_size=20, max_size=600))
@settings(max_examples=400)
def test_any_text_costs_no_more_than_estimated(said: str) -> None:
    assert count(compact(said)) <= cost(said)


@given(st.text(alphabet=string.ascii_letters + string.digits + "._-/ ", min_size=60, max_size=600))
@settings(max_examples=400)
def test_ids_drawn_by_lot_cost_no_more_than_estimated(said: str) -> None:
    assert count(said) <= tokens(said)


@given(st.text(max_size=500), st.integers(0, 120))
def test_a_clipped_text_costs_what_it_may_and_is_marked(said: str, limit: int) -> None:
    short = clip(said, limit)
    assert short == said or cost(short) <= max(limit, 3)
    if short != said:
        assert short == "" or (short.endswith("...") and said.startswith(short[:-3]))
    else:
        assert cost(said) <= max(limit, 3)


class _Numbers(Reply):
    shown: list[str] = Field(default_factory=list[str])
    more_offset: int | None = None


@given(st.lists(st.text(max_size=300), max_size=200))
def test_pages_have_every_entry_once_in_order_and_cost_what_they_may(texts: list[str]) -> None:
    entries = [("shown", clip(text, 100)) for text in texts]
    found: list[str] = []
    offset: int | None = 0
    while offset is not None:
        reply = page(entries, offset, lambda shown, more: _Numbers(shown=[text for _, text in shown], more_offset=more))
        assert cost(reply) <= 400
        assert reply.shown or not entries
        found += reply.shown
        offset = reply.more_offset
    assert found == [text for _, text in entries]


@given(st.integers(0, 64), st.integers(1, 60))
def test_as_many_entries_as_fit_are_sent_and_never_none(most: int, each: int) -> None:
    def build(number: int) -> list[str]:
        return ["word " * each] * number

    sent = len(fitting(build, most))
    assert min(1, most) <= sent <= most
    assert sent <= 1 or cost(build(sent)) <= 400
    assert sent == most or cost(build(sent + 1)) > 400


def test_a_reply_leaves_out_what_says_nothing_and_nothing_else() -> None:
    assert compact(_Numbers()) == "{}"
    assert compact(_Numbers(shown=["a"], more_offset=0)) == '{"shown":["a"],"more_offset":0}'
