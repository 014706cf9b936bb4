"""The parts of the model that are in C: found and loaded here, and compiled where the package is built.

    python -m components.model.compiled     # for a checkout or an installation that was built without a compiler

A library lies beside its source and has the hash of it in its name, so that none is ever older than its source. It is
plain C, loaded by ctypes: neither Python's headers nor any Python's version matter to it. Whoever asks for a library
that is not there does without.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import hashlib
import logging
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent
# Not -ffast-math: sums stay in the order in which they are written. What is given up (errno, traps, NaN, the sign of
# zeros) changes no bit of numbers that are finite, as ours are.
_FLAGS = (
    "-std=c11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-fPIC",
    "-shared",
)
_PACKAGES = "Debian: apt-get install gcc libc6-dev"


class CompilerError(RuntimeError):
    """There is no compiler, or it cannot compile."""


def library_path(name: str) -> Path:
    """Where the library of `<name>.c` lies, if it has been built."""
    digest = hashlib.sha256(SOURCES.joinpath(f"{name}.c").read_bytes() + " ".join(_FLAGS).encode()).hexdigest()
    return SOURCES / f"{name}-{sys.platform}-{platform.machine()}-{digest[:16]}.so"


def compile_all(compiler: str) -> list[Path]:
    """Compile what is not there yet; libraries of older sources are deleted. `compiler`: a command and its options."""
    built = [_compile(source.stem, compiler) for source in sorted(SOURCES.glob("*.c"))]
    for old in set(SOURCES.glob("*.so")) - set(built):
        old.unlink(missing_ok=True)
    return built


def _compile(name: str, compiler: str) -> Path:
    library = library_path(name)
    if library.exists():
        return library
    command = shlex.split(compiler)
    if shutil.which(command[0]) is None:
        raise CompilerError(f"There is no C compiler '{command[0]}'. Install one ({_PACKAGES}).")
    # Renamed when whole: another process may be loading it, or building it too.
    with tempfile.TemporaryDirectory(dir=SOURCES, prefix=".compiling-") as folder:
        made = Path(folder, library.name)
        done = subprocess.run(  # noqa: S603 - the compiler that is asked for
            [*command, *_FLAGS, "-o", str(made), str(SOURCES / f"{name}.c"), "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CompilerError(f"{command[0]} cannot compile {name}.c: {done.stderr.strip()[-500:]}")
        made.replace(library)
    return library


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """That of `<name>.c`; None, said once in the log, where it has not been built."""
    path = library_path(name)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        logger.warning(
            "%s.c is not compiled (%s): what it does takes several times longer. Install a C compiler (%s) and run: "
            "python -m components.model.compiled",
            name,
            error if path.exists() else "no compiler was there when Basketweave was installed",
            _PACKAGES,
        )
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="cc", help="a command and its options (default: cc)")
    compiler = parser.parse_args().compiler
    try:
        for path in compile_all(compiler):
            sys.stdout.write(f"{path}\n")
    except (CompilerError, OSError) as error:
        sys.exit(f"{error} Without it, batches of users are ranked one by one.")


if __name__ == "__main__":
    main()
