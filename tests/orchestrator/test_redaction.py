"""Secrets are replaced by the names of where they are from; nothing else is touched."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.redaction import Redactor, is_secret_name, recorded_environment

ENVIRONMENT = {
    "HF_TOKEN": "abcdef123456",
    "PGPASSWORD": "hunter2hunter2",
    "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn+FEMI=K7MDENG",
    "DEPLOY_KEYS": "first-key-line\nsecond-key-line",
    "QUOTED_SECRET": 'it\'s "quoted"',
    "TOKENIZERS_PARALLELISM": "false",
    "SHORT_TOKEN": "true",
    "LONGER_TOKEN": "abcdef123456789",
    "HOME": "/home/ada",
}
redact = Redactor(ENVIRONMENT)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("login with abcdef123456 failed", "login with <HF_TOKEN> failed"),
        ("abcdef123456789", "<LONGER_TOKEN>"),
        ("password=hunter2hunter2;", "password=<PGPASSWORD>;"),
        ("?key2=wJalr%2FXUtn%2BFEMI%3DK7MDENG&b", "?key2=<AWS_SECRET_ACCESS_KEY>&b"),
        ("only second-key-line of it", "only <DEPLOY_KEYS> of it"),
        (json.dumps({"DEPLOY": "first-key-line\nsecond-key-line"}), '{"DEPLOY": "<DEPLOY_KEYS>"}'),
        ("https://ada:pw@host/path", "https://<user>@host/path"),
        ("s3://KEYID:s3cr3t@bucket", "s3://<user>@bucket"),
        ("x?X-Amz-Signature=0a1b2c&part=2", "x?X-Amz-Signature=<secret>&part=2"),
        ("Authorization: Bearer 0123456789abcdef", "Authorization: Bearer <secret>"),
        ("id AKIAABCDEFGHIJKLMNOP here", "id <secret> here"),
        ("hf_" + "a1" * 12, "<secret>"),
    ],
)
def test_secrets_are_replaced(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "tokens: true, parallelism false, in /home/ada",
        "at https://host:8080/a?b=c@d and mail to ada@host",
        "model.layers.10 k=64 lr=3e-4, 2026-11-21T06:47:46Z",
        'File "/home/ada/x.py", line 3, in step',
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("HF_TOKEN", True),
        ("aws_session_token", True),
        ("GITHUB_PASSWORDS", True),
        ("MYAPIKEY", True),
        ("BASIC_AUTH_HEADER", True),
        ("GOOGLE_APPLICATION_CREDENTIALS", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("KEYBOARD", False),
        ("GIT_AUTHOR_NAME", False),
        ("PATH", False),
    ],
)
def test_names_tell_what_is_secret(name: str, is_secret: bool) -> None:
    assert is_secret_name(name) == is_secret


@given(
    st.text("abcXYZ0189", min_size=6, max_size=30),
    st.text(" .:/?=&@<>"),
    st.text(" .:/?=&@<>"),
)
def test_no_secret_survives_wherever_it_stands(secret: str, before: str, after: str) -> None:
    shown = Redactor({"A_TOKEN": secret})(f"{before}{secret}{after}{secret}")
    assert secret not in shown


def test_without_secrets_nothing_is_replaced() -> None:
    assert Redactor({})("abcdef123456") == "abcdef123456"


def test_variables_are_recorded_by_name_and_from_the_list_alone() -> None:
    environment = {"HF_HOME": "/x", "HF_TOKEN": "abcdef", "SAEQ_BACKEND": "reference"}
    assert recorded_environment(environment) == ["HF_HOME", "SAEQ_BACKEND"]
