"""What was remembered is hidden, addresses show no users, and everything else stays as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage.model.secrets import HIDDEN, SHORTEST, Secrets, has_userinfo, without_userinfo

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)
secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=SHORTEST, max_size=20).filter(
    lambda text: not text.startswith("-----")
)


@given(st.lists(secrets, min_size=1, max_size=4), st.lists(texts, max_size=5))
def test_nothing_that_was_remembered_is_left(known: list[str], around: list[str]) -> None:
    hidden = Secrets()
    hidden.remember(*known)
    shown = hidden.hide("\n".join(part + secret for part in ["", *around] for secret in known))
    assert HIDDEN in shown
    # What is left between two asterisks may make up a secret of asterisks alone, which tells nobody anything.
    assert not any(secret in shown for secret in known if set(secret) != {"*"})


def test_a_secret_that_begins_another_is_hidden_with_it() -> None:
    hidden = Secrets()
    hidden.remember("secret-of-ann")
    hidden.remember("secret-of-ann-and-bob")
    assert hidden.hide("secret-of-ann-and-bob and secret-of-ann") == f"{HIDDEN} and {HIDDEN}"


def test_each_line_of_a_key_is_hidden_and_what_frames_it_is_not() -> None:
    hidden = Secrets()
    hidden.remember("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END PRIVATE KEY-----\n")
    assert hidden.hide("at BgkqhkiG9w0B") == f"at {HIDDEN}"
    assert hidden.hide("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_a_text_too_short_for_a_secret_leaves_others_alone() -> None:
    hidden = Secrets()
    hidden.remember("", "a", "kafka")
    assert hidden.hide("a topic of kafka") == "a topic of kafka"


def test_users_and_passwords_of_addresses_are_hidden_whatever_is_in_them() -> None:
    for user in ("ann:horse", "token", "ann:p@ss:w", "ann:%2F"):
        address = f"https://{user}@memory.example:19530/path?to=x@y"
        assert has_userinfo(address)
        assert without_userinfo(f"({address})") == f"(https://{HIDDEN}@memory.example:19530/path?to=x@y)"


def test_addresses_without_users_stay() -> None:
    for text in ("http://host/v1?to=ann@host", "ann@host", "SASL_SSL://a:1,SASL_SSL://b:2", "see http://a/ or x@y"):
        assert not has_userinfo(text)
        assert without_userinfo(text) == text
