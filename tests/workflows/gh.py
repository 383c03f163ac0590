"""Stand-in for GitHub's program `gh`: keeps pull requests and issues in a JSON file, and can refuse.

`python gh.py STATE ARGUMENTS…`. It knows the commands, options and filters that the workflows use and fails
on any other. `STATE` is the file; see `read_state` for its content.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Item = dict[str, Any]

FILTERS: dict[str, Callable[[list[Item]], list[object]]] = {
    '.[] | select(.isCrossRepository | not) | select(.state != "CLOSED" or all(.comments[].body; '
    r'startswith("Superseded by ") | not)) | "\(.state) \(.url)"': lambda items: [
        f"{item['state']} {item['url']}"
        for item in items
        if not item["isCrossRepository"]
        and (
            item["state"] != "CLOSED"
            or not any(comment["body"].startswith("Superseded by ") for comment in item["comments"])
        )
    ],
    r'.[] | "\(.number) \(.title)"': lambda items: [f"{item['number']} {item['title']}" for item in items],
    r'.[] | select(.isCrossRepository | not) | "\(.number) \(.headRefName)"': lambda items: [
        f"{item['number']} {item['headRefName']}" for item in items if not item["isCrossRepository"]
    ],
}
"""Filters of `--jq`, without line breaks."""

PERMISSIONS = {"pr": "pull-requests", "issue": "issues"}
READING = {"list"}


def read_state(path: Path) -> dict[str, Any]:
    """Return the content of the state file.

    `pr` and `issue`: lists of items with number, title, body, state, comments, and so on. `tokens`: the
    permissions of each token. `refused`: commands such as `pr create` that fail.
    """
    empty: dict[str, Any] = {"pr": [], "issue": [], "tokens": {}, "refused": []}
    return {**empty, **(json.loads(path.read_text()) if path.exists() else {})}


def write_state(path: Path, state: dict[str, Any]) -> None:
    path.write_text(json.dumps(state, indent=1))


def main(path: Path, arguments: list[str]) -> None:
    if arguments == ["auth", "git-credential", "get"]:
        sys.stdin.read()
        print(f"username=x-access-token\npassword={os.environ['GH_TOKEN']}")
        return
    if arguments[:2] == ["auth", "git-credential"]:  # store or erase
        sys.stdin.read()
        return
    kind, command, *rest = arguments
    number = int(rest.pop(0)) if rest and not rest[0].startswith("-") else None
    options = _parse_options(rest)
    state = read_state(path)
    permissions = state["tokens"].get(os.environ.get("GH_TOKEN"), {})
    if permissions.get(PERMISSIONS[kind]) not in ({"read", "write"} if command in READING else {"write"}):
        sys.exit(f"GraphQL: Resource not accessible by integration ({kind} {command})")
    if f"{kind} {command}" in state["refused"]:
        sys.exit(f"GraphQL: GitHub Actions is not permitted to do this ({kind} {command})")
    assert options.pop("repo") == os.environ["GITHUB_REPOSITORY"]
    COMMANDS[command](state[kind], kind, number, options)
    assert not options, f"unknown options: {options}"
    write_state(path, state)


def _parse_options(arguments: list[str]) -> dict[str, str]:
    names, values = arguments[::2], arguments[1::2]
    assert len(names) == len(values), f"options with a value each are known: {arguments}"
    assert all(name.startswith("--") for name in names), arguments
    return {name[2:]: value for name, value in zip(names, values, strict=True)}


def _list(items: list[Item], kind: str, number: int | None, options: dict[str, str]) -> None:
    state = options.pop("state", "open")
    base, head = options.pop("base", None), options.pop("head", None)
    chosen = [
        item
        for item in reversed(items)
        if state in ("all", item["state"])
        and base in (None, item.get("baseRefName"))
        and head in (None, item.get("headRefName"))
    ]
    fields = options.pop("json").split(",")
    limit = int(options.pop("limit", "30"))
    found = [{name: _to_json(item)[name] for name in fields} for item in chosen[:limit]]
    for line in FILTERS[" ".join(options.pop("jq").split())](found):
        print(line)


def _to_json(item: Item) -> Item:
    """Return an item as `--json` has it."""
    return {
        **item,
        "state": item["state"].upper(),
        "comments": [{"body": comment} for comment in item["comments"]],
    }


def _create(items: list[Item], kind: str, number: int | None, options: dict[str, str]) -> None:
    names = {"base": "baseRefName", "head": "headRefName"}
    item: Item = {
        "number": len(items) + 1,
        "title": options.pop("title"),
        "body": _read_body(options),
        "state": "open",
        "comments": [],
        "isCrossRepository": False,
        **{names[name]: options.pop(name) for name in names if kind == "pr"},
    }
    folder = {"pr": "pull", "issue": "issues"}[kind]
    server, repository = os.environ["GITHUB_SERVER_URL"], os.environ["GITHUB_REPOSITORY"]
    item["url"] = f"{server}/{repository}/{folder}/{item['number']}"
    items.append(item)
    print(item["url"])


def _comment(items: list[Item], kind: str, number: int | None, options: dict[str, str]) -> None:
    _find(items, number)["comments"].append(_read_body(options))


def _close(items: list[Item], kind: str, number: int | None, options: dict[str, str]) -> None:
    item = _find(items, number)
    item["state"] = "closed"
    item["comments"].append(options.pop("comment"))


def _read_body(options: dict[str, str]) -> str:
    return Path(options.pop("body-file")).read_text() if "body-file" in options else options.pop("body")


def _find(items: list[Item], number: int | None) -> Item:
    (item,) = (item for item in items if item["number"] == number)
    return item


COMMANDS: dict[str, Callable[[list[Item], str, int | None, dict[str, str]], None]] = {
    "list": _list,
    "create": _create,
    "comment": _comment,
    "close": _close,
}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
