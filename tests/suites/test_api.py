"""The API does what its own description says: schemathesis asks the real page for everything that
openapi.json allows, and for what it doesn't.

Rules: the same requests each time (`--seed`), for a limited time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench import browser
from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.suites.page import start

TOKEN = "a-token-for-reading"
# What it can't know of a description: 413 refuses, too; an address and 5.0 for 5 can't be told
SETTINGS = """\
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 408, 409, 413, 415, 503]
[parameters]
"path.name" = "isp-b"
[[operations]]
include-name-regex = "explain|POST"
checks.positive_data_acceptance.enabled = false
"""


def test_all_answers_are_as_described(lab_world: LabWorld, tmp_path: Path) -> None:
    world = lab_world("two")
    with browser.opened(world):
        token = world.run_dir / "token"
        token.write_text(TOKEN)
        start(world, f'token_file = "{token}"\n')
        ask_everything(world, tmp_path, "--max-time=12", f"--header=Authorization: Bearer {TOKEN}")
        ask_everything(world, tmp_path, "--max-examples=3", "--phases=fuzzing")
        assert "Traceback" not in (world.dir / "web-host.log").read_text()


def ask_everything(world: World, folder: Path, *options: str) -> None:
    config, schema = folder / "schemathesis.toml", folder / "openapi.json"
    config.write_text(SETTINGS)
    url = f"{browser.AT}/api/v1"
    bearer = ["--oauth2-bearer", TOKEN]
    schema.write_text(world["host"].run(["curl", "-sf", *bearer, f"{url}/openapi.json"]).stdout)
    program = Path(sys.executable).with_name("st")
    command = [str(program), "--config-file", str(config), "run", str(schema), "--url", url]
    command += ["--seed=18", "--no-color", "--warnings=off", "--continue-on-failure", *options]
    environment = {**os.environ, "COLUMNS": "160"}
    # a folder of its own, since it leaves a database of what it found
    command = ["env", "-C", str(folder), *command]
    done = world["host"].run(command, check=False, env=environment, timeout_s=60)
    assert done.returncode == 0, done.stdout + done.stderr
