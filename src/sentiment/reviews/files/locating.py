"""Which files a source names, each of them once."""

from collections.abc import Iterable

from sentiment.errors import UserError
from sentiment.params.data import FilesSource
from sentiment.reviews.fetching import local_path, matching, shown


def addresses_of(source: FilesSource) -> list[str]:
    """Return the address of every file of a source, in the order of `paths` and then of the names.

    Raises UserError where a path or pattern names no file, or two of them name the same one.
    """
    return _unique([source])[0]


def refuse_shared_files(sources: Iterable[FilesSource]) -> None:
    """Raise UserError where a file is in two of the sources, or in one source twice: it would count twice."""
    _unique(sources)


def _unique(sources: Iterable[FilesSource]) -> list[list[str]]:
    """Return the addresses of each source."""
    owners: dict[str, str] = {}
    found: list[list[str]] = []
    for source in sources:
        found.append([])
        for path in source.paths:
            for address in matching(path):
                file = _identity(address)
                if file in owners:
                    both = {f"{owners[file]}", f"{source.name}: {shown(path)}"}
                    raise UserError(
                        f"{shown(address)}: named twice, by {' and by '.join(sorted(both))}; "
                        "its reviews would count twice"
                    )
                owners[file] = f"{source.name}: {shown(path)}"
                found[-1].append(address)
    return found


def _identity(address: str) -> str:
    """Return one text for every way to write the address of a file.

    A link in the last place stays: DVC may link two files with equal content to one in its cache.
    """
    path = local_path(address)
    return address if path is None else str(path.parent.resolve() / path.name)
