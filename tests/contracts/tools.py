"""Programs of others that judge the mesh: where they are, and how they get there.

`python tests/contracts/tools.py` installs those that come by `go install`, which tests have no time for. Where there is
neither the program nor Go, their tests are skipped, but not in CI: `.ci/run` sees to both.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

CACHE: Final = Path.home() / ".cache" / "gossamer"
GO: Final = {
    "h2spec": "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible",
    "hey": "github.com/rakyll/hey@v0.1.5",
}


def find(name: str) -> str | None:
    return shutil.which(
        name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:{CACHE}:{Path(sys.executable).parent}"
    )


def tool(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails in CI."""
    found = find(name)
    if found is None:
        assert "CI" not in os.environ, f"{name} is not installed: .ci/run should have"
        pytest.skip(f"{name} is not installed (python tests/contracts/tools.py, or Debian's packages)")
    return found


def install() -> None:
    """Raises CalledProcessError, with Go's own words on standard error."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for name, module in GO.items():
        if find(name) is None:
            subprocess.run(["go", "install", module], check=True, env={**os.environ, "GOBIN": str(CACHE)})
        print(f"{name}: {find(name)}")


if __name__ == "__main__":
    install()
