import pytest

from tests.workflows.expressions import Contexts, evaluate, holds, interpolate

VALUES = {
    "github": {"event": {"schedule": "23 4 * * 1"}, "ref_name": "main"},
    "needs": {"train": {"result": "success", "outputs": {"outcome": "promote"}}},
    "env": {"EMPTY": ""},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("github.event.schedule == '23 4 * * 1'", True),
        ("needs.train.outputs.outcome != 'promote'", False),
        ("github.event.missing.deeper", None),
        ("github.event.missing == ''", True),
        ("env.EMPTY && 'set' || 'unset'", "unset"),
        ("!(github.ref_name == 'MAIN') || false", False),
        ("'it''s'", "it's"),
        ("'text' == 0", False),
        ("startsWith(github.ref_name, 'ma')", True),
    ],
)
def test_value(text: str, value: object) -> None:
    assert evaluate(text, Contexts(VALUES)) == value


@pytest.mark.parametrize(
    "text", ["secret.KEY", "fromJSON('1')", "github['event']", "1 <", "(true", "true false", "github.'a'"]
)
def test_unknown_syntax_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown|expected|incomplete"):
        evaluate(text, Contexts(VALUES))


def test_condition_requires_success_unless_it_says_otherwise() -> None:
    failed, skipped = Contexts(VALUES, failed=True), Contexts(VALUES, skipped=True)
    outcome = "needs.train.outputs.outcome == 'promote'"
    assert holds(outcome, Contexts(VALUES))
    assert not holds(outcome, failed)
    assert not holds(None, failed)
    assert not holds(None, skipped)
    assert holds(f"!cancelled() && {outcome}", failed)
    assert holds(f"${{{{ failure() && {outcome} }}}}", failed)
    assert not holds("failure()", skipped)


def test_condition_with_text_around_an_expression_is_refused() -> None:
    """A runner takes it for a text that is not empty, which is true."""
    with pytest.raises(AssertionError, match="always true"):
        holds("${{ github.ref_name }} == 'other'", Contexts(VALUES))


def test_interpolation() -> None:
    assert interpolate("on-${{ github.ref_name }}-${{ github.none }}.", Contexts(VALUES)) == "on-main-."
    assert interpolate(True, Contexts(VALUES)) == "true"
