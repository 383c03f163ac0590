"""Expressions of workflows: `${{ … }}` in values, and conditions.

Only what the project's workflows use is evaluated; anything else raises.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>\d+)|(?P<name>[A-Za-z_][\w-]*)|(?P<sign>==|!=|&&|\|\||[!().,]))"
)
TEMPLATE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
STATUS_FUNCTIONS = {"always", "success", "failure", "cancelled"}
CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Contexts:
    """What expressions can read.

    Attributes:
        values: contexts such as `github`, `env` and `steps`, as nested mappings; a name that is not in one is
            null, as on a runner.
        failed: whether a step before, or a needed job, failed.
        skipped: whether a needed job did not run.
    """

    values: Mapping[str, Any]
    failed: bool = False
    skipped: bool = False

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        return {
            "always": lambda: True,
            "cancelled": lambda: False,
            "success": lambda: not (self.failed or self.skipped),
            "failure": lambda: self.failed,
            "startsWith": lambda text, start: str(text).lower().startswith(str(start).lower()),
            "contains": lambda text, part: str(part).lower() in str(text).lower(),
        }


def interpolate(value: object, contexts: Contexts) -> str:
    """Return a value of a workflow with its expressions replaced, as a string."""
    if isinstance(value, bool):
        return str(value).lower()
    return TEMPLATE.sub(lambda match: _to_text(evaluate(match[1], contexts)), str(value))


def holds(condition: object, contexts: Contexts) -> bool:
    """Return whether an `if:` is met; without a status function it also requires success, as on a runner."""
    if condition is None:
        return bool(contexts.functions["success"]())
    text = str(condition).strip()
    if match := TEMPLATE.fullmatch(text):
        text = match[1]
    assert "${{" not in text, f"a condition that is always true: {condition}"
    needs_success = not STATUS_FUNCTIONS & set(re.findall(r"(\w+)\(", text))
    return bool(evaluate(text, contexts)) and (not needs_success or contexts.functions["success"]())


def evaluate(text: str, contexts: Contexts) -> Any:
    """Evaluate an expression.

    Raises:
        ValueError: it has syntax, a context or a function that this evaluator does not know.
    """
    parser = _Parser(_split(text), contexts, text)
    value = parser.parse_or()
    parser.require_end()
    return value


def _split(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"unknown syntax at {text[position:]!r} in {text!r}")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        position = match.end()
    return tokens


@dataclass
class _Parser:
    tokens: list[tuple[str, str]]
    contexts: Contexts
    text: str
    position: int = field(default=0)

    def _take(self, *signs: str) -> str | None:
        """Return the next token and go on, if it is one of these signs."""
        if self.position < len(self.tokens) and self.tokens[self.position] in [("sign", s) for s in signs]:
            self.position += 1
            return self.tokens[self.position - 1][1]
        return None

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise ValueError(f"expected {sign!r} in {self.text!r}")

    def require_end(self) -> None:
        if self.position != len(self.tokens):
            raise ValueError(f"unknown syntax at {self.tokens[self.position][1]!r} in {self.text!r}")

    def parse_or(self) -> Any:
        value = self._parse_and()
        while self._take("||"):
            other = self._parse_and()
            value = value or other
        return value

    def _parse_and(self) -> Any:
        value = self._parse_comparison()
        while self._take("&&"):
            other = self._parse_comparison()
            value = value and other
        return value

    def _parse_comparison(self) -> Any:
        value = self._parse_negation()
        while sign := self._take("==", "!="):
            value = _are_equal(value, self._parse_negation()) == (sign == "==")
        return value

    def _parse_negation(self) -> Any:
        return not self._parse_negation() if self._take("!") else self._parse_operand()

    def _parse_operand(self) -> Any:
        if self._take("("):
            value = self.parse_or()
            self._expect(")")
            return value
        if self.position == len(self.tokens):
            raise ValueError(f"incomplete expression: {self.text!r}")
        kind, token = self.tokens[self.position]
        self.position += 1
        if kind == "text":
            return token[1:-1].replace("''", "'")
        if kind == "number":
            return int(token)
        if kind != "name":
            raise ValueError(f"unexpected {token!r} in {self.text!r}")
        if token in CONSTANTS:
            return CONSTANTS[token]
        return self._call(token) if self._take("(") else self._look_up(token)

    def _call(self, name: str) -> Any:
        arguments = []
        if not self._take(")"):
            arguments.append(self.parse_or())
            while self._take(","):
                arguments.append(self.parse_or())
            self._expect(")")
        if name not in self.contexts.functions:
            raise ValueError(f"unknown function {name} in {self.text!r}")
        return self.contexts.functions[name](*arguments)

    def _look_up(self, name: str) -> Any:
        if name not in self.contexts.values:
            raise ValueError(f"unknown context {name} in {self.text!r}")
        value = self.contexts.values[name]
        while self._take("."):
            kind, key = self.tokens[self.position]
            self.position += 1
            if kind != "name":
                raise ValueError(f"unexpected {key!r} in {self.text!r}")
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def _are_equal(one: Any, other: Any) -> bool:
    """Compare as a runner does: texts without case; values of different kinds as numbers."""
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    if type(one) is type(other):
        return bool(one == other)
    return _to_number(one) == _to_number(other)  # a text that is no number equals nothing


def _to_number(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return float("nan")


def _to_text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
