"""The config of what is reported, to whom: [web], [history], [[notify]], and an uplink's budget."""

from __future__ import annotations

import pytest

from ifdefault import config
from ifdefault.model.config import HistoryConfig, NotifyConfig, WebConfig
from ifdefault.model.errors import ConfigError

UPLINK = '[uplink.isp-a]\ninterface = "wan0"\n'
NOTIFY = '[[notify]]\nname = "ops"\n'


def test_all_that_can_be_said() -> None:
    parsed = config.parse(
        f"""{UPLINK}budget = "1.5 TiB"
reset_day = 31
[web]
listen = "[::1]:80"
hosts = ["Status.Example.net."]
token_file = "/t"
control_token_file = "/c"
[history]
keep = "30d"
textfile = "/var/lib/x.prom"
[[notify]]
name = "ops"
mail = "a@b.example"
smtp = "smtps://me@mail.example:2465"
password_file = "/p"
from = "x@y.example"
severity = "error"
events = ["path"]
uplinks = ["isp-a"]
group = "1m30s"
quiet = "22:00-7:30"
[[notify]]
name = "chat"
webhook_file = "/w"
""",
        "f",
    )
    assert (parsed.uplinks[0].budget_bytes, parsed.uplinks[0].reset_day) == (3 << 39, 31)
    assert parsed.web == WebConfig("[::1]:80", ("status.example.net",), "/t", "/c")
    assert (parsed.web.address, parsed.web.socket) == (("::1", 80), "")
    assert parsed.history == HistoryConfig(30 * 86400, "/var/lib/x.prom")
    first, second = parsed.notify
    assert first == NotifyConfig(
        "ops",
        mail="a@b.example",
        smtp="smtps://me@mail.example:2465",
        password_file="/p",
        sender="x@y.example",
        severity="error",
        events=("path",),
        uplinks=("isp-a",),
        group_s=90,
        quiet=(22 * 60, 7 * 60 + 30),
    )
    assert second == NotifyConfig("chat", webhook_file="/w")
    assert config.parse(f'{UPLINK}[web]\nlisten = "/run/w"', "f").web.socket == "/run/w"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[web]\nlisten = "0.0.0.0:80"', '2: web.listen: "0.0.0.0:80" can be reached by others'),
        ('[web]\nlisten = "localhost:80"', '2: web.listen: "localhost:80" is not an address'),
        ('[web]\nlisten = "127.0.0.1:0"', '2: web.listen: "127.0.0.1:0": 0 is not a port'),
        ('[web]\ntoken_file = "/t"\ncontrol_token_file = "/t"', '3: web.control_token_file: "/t"'),
        ('[web]\nhosts = ["a b"]', '2: web.hosts[0]: "a b" is not a host name'),
        ('[history]\nkeep = "1h"', '2: history.keep: "1h" is out of range'),
        ('[history]\ntextfile = "/x"', '2: history.textfile: "/x" doesn\'t end in .prom'),
        ('[notify]\nname = "ops"', "1: notify: not a list of tables; write [[notify]] for each"),
        ('[[notify]]\nmail = "a@b"', '1: notify[0].name: missing; name it, as in name = "ops"'),
        (NOTIFY, "1: notify[0]: no recipient; add mail, webhook, ntfy or apprise"),
        (f'{NOTIFY}mail = "a@b"\nntfy = "http://n/t"', "4: notify[0].ntfy: conflicts with mail"),
        (f'{NOTIFY}mail = "a, b"', '3: notify[0].mail: "a, b" is not a mail address'),
        (f'{NOTIFY}ntfy = "http://n/"', '3: notify[0].ntfy: "http://n/" has no topic'),
        (f'{NOTIFY}webhook = "ftp://x"', '3: notify[0].webhook: "ftp://x" is not a URL'),
        (f'{NOTIFY}webhook = "http://x:99999/"', "3: notify[0].webhook: "),
        (f'{NOTIFY}webhook = "http://x/"\nfrom = "a@b"', "4: notify[0].from: is for mail only"),
        (f'{NOTIFY}mail = "a@b"\nsmtp = "smtp://u@h"', '4: notify[0].smtp: no password for "u"'),
        (f'{NOTIFY}mail = "a@b"\nsmtp = "smtp://u:p@h"', "4: notify[0].smtp: has a password"),
        (f'{NOTIFY}mail = "a@b"\npassword_file = "/p"', "4: notify[0].password_file: smtp has no"),
        (f'{NOTIFY}mail = "a@b"\nform = "c@d"', "4: notify[0].form: unknown key; did you mean f"),
        (f'{NOTIFY}mail = "a@b"\nevents = ["paths"]', '4: notify[0].events[0]: "paths" is not a'),
        (f'{NOTIFY}mail = "a@b"\nuplinks = ["isp-b"]', '4: notify[0].uplinks[0]: "isp-b" is not'),
        (f'{NOTIFY}mail = "a@b"\nquiet = "22-7"', '4: notify[0].quiet: "22-7" is not a time of'),
        (f'{NOTIFY}mail = "a@b"\ngroup = "2h"', '4: notify[0].group: "2h" is too long'),
        (f'{NOTIFY}mail = "a@b"\n{NOTIFY}mail = "c@d"', '5: notify[1].name: "ops" is already'),
    ],
)
def test_each_error_is_found_at_its_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(f"{text}\n{UPLINK}", "f")
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"f:{told}")


@pytest.mark.parametrize("budget", ["500", "500 GX", "-1 GB", "1e3 GB"])
def test_a_budget_has_a_unit(budget: str) -> None:
    with pytest.raises(ConfigError, match=r"uplink.isp-a.budget: .* is not an amount of data"):
        config.parse(f'{UPLINK}budget = "{budget}"', "f")
