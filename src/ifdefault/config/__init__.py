"""The config file: TOML text to `model.config.Config`, or all of its errors at once.

Rules: pydantic is imported only when a config is read: it takes longer to load than everything else
that the command line needs.
"""

from ifdefault.config.parse import (
    json_schema,
    parse,
    parse_on_host,
    read,
    read_text,
    with_lines,
)

__all__ = ["json_schema", "parse", "parse_on_host", "read", "read_text", "with_lines"]
