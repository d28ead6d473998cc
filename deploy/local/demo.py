"""The story in one run, on the local stack: a key is escrowed, everything is lost, the key comes back.

Run by `make demo` after `make up`; every line that starts with `$` is a command you can type yourself.
"""

import hashlib
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

BOLD, DIM, GREEN, RED, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m")
if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
    BOLD = DIM = GREEN = RED = PLAIN = ""


def say(text: str) -> None:
    """Tell the next step of the story."""
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def strongroom(home: Path, *arguments: str, out: Path | None = None) -> None:
    """Run a `strongroom` command on a home, showing it as one would type it; end the demo if it fails."""
    shown = shlex.join(arguments) + (f" > {out.name}" if out else "")
    print(f"{DIM}$ STRONGROOM_HOME={home.name} strongroom {shown}{PLAIN}", flush=True)
    stream = out.open("wb") if out else None
    try:
        done = subprocess.run(
            ["strongroom", *arguments],
            env={**os.environ, "STRONGROOM_HOME": str(home)},
            stdout=stream,
            check=False,
        )
    finally:
        if stream:
            stream.close()
    if done.returncode != 0:
        print(f"{RED}exit code {done.returncode}; the workers' logs are in .local/log{PLAIN}")
        sys.exit(1)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tell(local: Path, source: Path) -> None:
    """Tell the whole story with a copy of `source`; raises SystemExit when a step fails."""
    principal = f"demo-{secrets.token_hex(3)}"
    place = local / "demo" / principal
    place.mkdir(parents=True)
    os.chdir(place)
    officers = [local / f"officer-{number}" for number in (1, 2)]
    host, file = place / "host", place / source.name
    shutil.copyfile(source, file)
    sealed, opened = file.with_name(file.name + ".age"), place / f"recovered-{file.name}"
    before = digest(file)

    say(f"1. An officer invites the host {principal}; the host enrols.")
    strongroom(officers[0], "invite", principal, out=place / "inv.json")
    strongroom(host, "enrol", "inv.json")

    say(f"2. The host seals {file.name}: an age file, and its session key goes to the authority.")
    strongroom(host, "seal", file.name)

    say("3. Disaster: the host's home with every key is wiped, and so is the file.")
    shutil.rmtree(host)
    file.unlink()
    print(f"   {host.name}/ is gone; {sealed.name} is all that is left")

    say("4. Two officers sign a replacement invitation; the reinstalled host enrols with it.")
    strongroom(officers[0], "invite", principal, "--replace", out=place / "inv-1.json")
    strongroom(officers[1], "countersign", "inv-1.json", out=place / "inv-2.json")
    strongroom(host, "enrol", "inv-2.json")

    say("5. The host recovers the session key and opens the file with it.")
    strongroom(host, "recover", "--file", sealed.name, "--reason", "demo: disk lost", "--out", "session.key")
    strongroom(host, "open", sealed.name, "--identity", "session.key", "--output-file", opened.name)

    after = digest(opened)
    equal = before == after
    say("6. The digests of the file before and after:")
    print(f"   before     {before}\n   recovered  {after}")
    print(f"   {GREEN}equal{PLAIN}" if equal else f"   {RED}NOT EQUAL{PLAIN}")
    if not equal:
        sys.exit(1)


def main() -> None:
    """Run the demo: `demo.py LOCAL_FOLDER FILE`."""
    began = time.monotonic()
    local, source = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    tell(local, source)
    print(
        f"\n{BOLD}Done in {time.monotonic() - began:.0f} s. Next:{PLAIN}\n"
        "   . .local/env                                   the command and settings in your shell\n"
        "   strongroom --help                              every command\n"
        "   strongroom doctor                              is everything well?\n"
        "   make demo FILE=path/to/your/file               the same with a file of yours\n"
        "   make down                                      end what was started"
    )


if __name__ == "__main__":
    main()
