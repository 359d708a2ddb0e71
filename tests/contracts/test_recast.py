"""A commit written anew with another tree and other parents, as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.adapters.git import weave
from mcp_server.core.spec import Sha

LINES = st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"").replace(b"\0", b""))


@given(LINES, st.binary(max_size=60), st.lists(st.sampled_from(["a" * 40, "b" * 40]), max_size=2), st.booleans())
def test_a_commit_is_recast_with_its_author_and_message_byte_by_byte(
    author: bytes, message: bytes, parents: list[Sha], signed: bool
) -> None:
    signature = b"gpgsig -----BEGIN\n author Eve\n \n parent x\n -----END\n" if signed else b""
    raw = b"tree %s\nauthor %s\ncommitter C\n%s\n%s" % (b"1" * 40, author, signature, message)
    made = weave.recast(raw, "2" * 40, tuple(parents), b"D <d> 1 +0000")
    head, _, rest = made.partition(b"\n\n")
    assert rest == message
    assert head.split(b"\n")[-2:] == [b"author " + author, b"committer D <d> 1 +0000"]
    assert (weave.tree_of(made), weave.parents_of(made)) == ("2" * 40, parents)


@pytest.mark.parametrize("encoding", [b"no-such-code", b"ascii"])
def test_a_committer_that_the_encoding_has_no_letters_for_is_left_to_git(encoding: bytes) -> None:
    raw = b"tree 1\nauthor A\ncommitter C\nencoding " + encoding + b"\n\nx"
    with pytest.raises(weave.NotHere):
        weave.recast(raw, "2", (), "Zoé".encode())
