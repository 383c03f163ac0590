"""Which files a source names, each of them once."""

from collections.abc import Iterable, Sequence

from sentiment.errors import UserError
from sentiment.params.data import FilesSource
from sentiment.reviews.fetching import local_path, matching, shown


def addresses_of(source: FilesSource) -> list[str]:
    """Return the address of every file of a source, in the order of `paths` and then of the names.

    Raises UserError where a path or pattern names no file, or two of them name the same one.
    """
    return _unique([(source.name, source.paths)])


def refuse_shared_files(sources: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Raise UserError where one file is named twice, since its reviews would count twice.

    sources: the name of each source of files, and its paths, patterns or addresses.
    """
    _unique(sources)


def _unique(sources: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    owners: dict[str, str] = {}
    addresses: list[str] = []
    for name, paths in sources:
        for path in paths:
            owner = f"{name}: {shown(path)}"
            for address in matching(path):
                file = _identity(address)
                if file in owners:
                    raise UserError(
                        f"{shown(address)}: named twice, by {owners[file]} and by {owner}; "
                        "its reviews would count twice"
                    )
                owners[file] = owner
                addresses.append(address)
    return addresses


def _identity(address: str) -> str:
    """Return one text for every way to write the address of a file.

    A link in the last place stays: DVC may link two files with equal content to one in its cache.
    """
    path = local_path(address)
    return address if path is None else str(path.parent.resolve() / path.name)
