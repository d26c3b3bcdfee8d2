"""The config file: TOML in, `model.config.Config` or every error at once out.

Rules: pydantic is imported when a config is read, not before: it takes longer to load than all
else that the command line needs.
"""

from ifdefault.config.parse import json_schema, parse, placed, read

__all__ = ["json_schema", "parse", "placed", "read"]
