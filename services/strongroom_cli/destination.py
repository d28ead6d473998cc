"""Where a command puts a key: a new file for its owner alone, or standard output where that was asked for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from strongroom.errors import UsageError


def check_destination(out: Path | None, *, force: bool, json: bool, reveal: bool | None = None) -> None:
    """Raise UsageError for a place where no key can go; call it before anything is asked for or computed.

    Arguments: `out` may be `-`, standard output; `force` is whether a file may be overwritten; `reveal` whether it
    may go to the terminal without `out`, None for a command without such an option.
    """
    if out is None and not reveal:
        ways = "--out FILE, --out - for standard output"
        raise UsageError("say where the key shall go", hint=ways if reveal is None else f"{ways}, or --reveal")
    if is_stdout(out):
        if json:
            raise UsageError("a key is never part of a JSON document", hint="use --out FILE with -o json")
        return
    if out is not None and out.is_dir():
        raise UsageError(f"{out}: is a folder", hint=f"name a file in it, e.g. --out {out / 'key'}")
    if out is not None and out.exists() and not (force and out.is_file()):
        raise UsageError(f"{out} exists", hint="choose another file, or overwrite a file with --force")


def is_stdout(out: Path | None) -> bool:
    """Say whether this is standard output."""
    return out is None or str(out) == "-"


@contextmanager
def destination(out: Path | None, *, force: bool) -> Iterator[BinaryIO]:
    """Give the stream to write a key to; a file is at `out`, with mode 0600, when the block ends well."""
    from strongroom_agent.files import new_file

    if out is None or is_stdout(out):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with new_file(out, overwrite=force) as (_, stream):
        yield stream
