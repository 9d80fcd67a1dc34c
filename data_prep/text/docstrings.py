"""Docstrings out of Python files that are parsed, never imported, on two processes."""

import ast
import inspect
import multiprocessing
import os
import re
import signal
import sysconfig
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from data_prep.errors import DataError
from data_prep.text.document import Document

MIN_CHARACTERS = 200  # shorter ones are half of the docstrings and 7 % of their text: "Return the name." and the like
MIN_LETTERS = 0.75  # letters and spaces among all characters: prose has 0.8 to 0.95, tables and sessions of code less
MIN_FILE_PROSE = 400  # bytes of it for which parsing a file pays
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}

NOT_LETTERS = re.compile(b"[^A-Za-z ]+")
SURROGATES = re.compile("[\ud800-\udfff]")

Documentable = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def installed_docstrings() -> Iterator[Document]:
    """The docstrings of the standard library and the installed packages that are prose, the best documented file first.

    The order follows from the files. Best first, because parsing is slow (4 MB/s a core) and few files hold most of the
    text: 8 MB of it come from parsing 22 MB, 14 MB from 57 MB, all of it from 190 MB.

    Raises:
        DataError: a process that parses was killed, or could not start.
    """
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=spawn, initializer=_ignore_interrupts)
    try:
        files = [(str(root), name) for root in _roots() for name in _python_files(root)]
        shares = pool.map(_prose_share, files, chunksize=256)
        ranked = sorted((-share, name, root) for share, (root, name) in zip(shares, files, strict=True) if share)
        for documents in pool.map(_docstrings_of, [(root, name) for _, name, root in ranked], chunksize=16):
            yield from documents
    except BrokenProcessPool as error:
        raise DataError(
            "a process that parses the installed Python files ended early: it was killed (out of memory?), or the "
            'script that started it has no `if __name__ == "__main__":`. Run it again, or add that line.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)  # the caller may have enough long before the last file


def without_docstrings(path: Path) -> str | None:
    """The code of a Python file without docstrings, comments and its layout; None if it cannot be parsed."""
    tree = _parsed(path)
    if tree is None:
        return None
    for node in _documentable(tree):
        if ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.Pass()]
    return ast.unparse(tree)


def is_prose(text: str) -> bool:
    """Whether `text` is long enough, and mostly English letters."""
    return _is_prose(text.encode("utf-8", "replace")) and not SURROGATES.search(text)


def _is_prose(text: bytes) -> bool:
    return len(text) >= MIN_CHARACTERS and len(NOT_LETTERS.sub(b"", text)) >= MIN_LETTERS * len(text)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches all processes of a terminal; the parent answers it, and ends the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _roots() -> list[Path]:
    return sorted({Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")})


def _python_files(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        yield from (os.path.relpath(os.path.join(folder, file), root) for file in files if file.endswith(".py"))


def _prose_share(place: tuple[str, str]) -> float:
    """The share of the file that is prose between triple quotes; 0 if it is not worth parsing."""
    try:
        content = Path(*place).read_bytes()
    except OSError:  # a dangling link in somebody's package is no reason to stop
        return 0.0
    prose = sum(len(quoted) for quoted in content.split(b'"""')[1::2] if _is_prose(quoted))
    return prose / len(content) if prose >= MIN_FILE_PROSE else 0.0


def _docstrings_of(place: tuple[str, str]) -> list[Document]:
    _, name = place
    tree = _parsed(Path(*place))
    if tree is None:
        return []
    found = [(getattr(node, "lineno", 1), ast.get_docstring(node)) for node in _documentable(tree)]
    documents = (Document(f"{name}:{line}", inspect.cleandoc(text).strip()) for line, text in found if text)
    return [document for document in documents if is_prose(document.text)]


def _parsed(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # of invalid escapes in other people's strings
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # templates and files for other Pythons end in .py too
        return None


def _documentable(node: ast.AST) -> Iterator[Documentable]:
    """The module, classes and functions, at any depth of statements; expressions, most of the tree, are not walked."""
    if isinstance(node, Documentable):
        yield node
    for name in ("body", "orelse", "handlers", "finalbody"):
        children = getattr(node, name, ())
        for child in children if isinstance(children, list) else ():
            yield from _documentable(child)
