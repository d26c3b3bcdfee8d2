"""Templates and files of the page.

Rules: all is loaded at the start. Templates escape whatever isn't markup of ours; a name that a
template doesn't know is an error. A file's address changes with its content, so that browsers may
keep it.
"""

from __future__ import annotations

import socket
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ifdefault import __version__
from ifdefault.web import view
from ifdefault.web.view import Overview

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ACTIONS = {"drain": "Drain", "down": "Force down", "up": "Force up", "auto": "Back to automatic"}


class Renderer:
    def __init__(self) -> None:
        self._env = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._files = {path.name: path.read_bytes() for path in (_HERE / "static").iterdir()}
        self._versions = {name: sha256(data).hexdigest()[:12] for name, data in self._files.items()}
        self._env.globals.update(
            host=socket.gethostname(),
            version=__version__,
            static=lambda name: f"/static/{name}?v={self._versions[name]}",
            sign=view.sign,
            zone=lambda: time.strftime("%Z"),
            actions=ACTIONS,
        )
        for name in self._env.list_templates():
            self._env.get_template(name)
        self._parts: Any = self._env.get_template("parts.html").module

    def page(self, template: str, here: str = "", status: int = 200, **values: Any) -> web.Response:
        text = self._env.get_template(template).render(here=here, **values)
        return web.Response(text=text, content_type="text/html", status=status)

    def parts(self, seen: Overview, control: bool) -> dict[str, str]:
        """What changes of the first page, by the ids of its elements."""
        parts = self._parts
        changing = {
            "part-headline": parts.headline(seen),
            "part-taken": parts.taken(seen),
            "part-problems": parts.problems(seen),
            "part-decision": parts.decision(seen),
            "part-names": parts.names(seen),
            "part-servers": parts.servers(seen),
            "part-events": parts.events(seen),
        }
        changing |= {f"part-uplink-{u.name}": parts.uplink(u, control) for u in seen.uplinks}
        return {id_: str(html) for id_, html in changing.items()}

    async def static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self._files:
            raise web.HTTPNotFound
        response = web.Response(body=self._files[name], content_type=_TYPES[Path(name).suffix])
        response.charset = "utf-8"
        response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
        return response
