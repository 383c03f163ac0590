"""Model folders as arguments of commands."""

from pathlib import Path


def locate_folder(name: str) -> str:
    """Return the absolute path of a folder, which would change with the working directory; else the name.

    A name that is also a git revision is that of the folder only if a model is in it.
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    from sentiment.repository import is_revision, warn_about_revision

    if not (folder / "config.json").is_file() and is_revision(name):
        return name
    warn_about_revision(name, "folder")
    return str(folder.absolute())
