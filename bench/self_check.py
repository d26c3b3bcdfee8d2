"""`self_check`: what it costs to ask the kernel whether packets go where they are meant to go.

Rules: in process, on a lab's host with four uplinks after `apply`, as the daemon does it.
"""

from __future__ import annotations

from bench import many_uplinks
from bench.clock import log, times_ms
from bench.results import Figure, Report
from bench.stats import median, quantile
from bench.subject import Subject
from ifdefault.host.observe import ask
from ifdefault.kernel.read import read_facts
from ifdefault.lab.world import World
from ifdefault.plan import self_check

TARGET_MS = 1.0
_UPLINKS, _TIMES = range(1, 5), 200
_HOW = f"""\
A host with {len(_UPLINKS)} uplinks, each with an address of both families, after `apply`.
*Questions* makes the list of packets from the plan, *answers* asks the kernel for each
(RTM_GETROUTE) and compares; *look* is what the daemon reads each time anyway. {_TIMES} times each,
in process."""


def run() -> Report:
    log(f"asking for {len(_UPLINKS)} uplinks")
    with World.up(many_uplinks.topology(uplinks=_UPLINKS)) as world:
        host = Subject(world)
        host.apply()
        samples, asked = world["host"].python(lambda: _measure(host))
    whole = [a + b for a, b in zip(samples["questions"], samples["answers"], strict=True)]
    figures = (
        Figure("questions and answers: median", median(whole), "ms", TARGET_MS),
        Figure("questions and answers: p95", quantile(whole, 0.95), "ms"),
        Figure("look: median", median(samples["look"]), "ms"),
        Figure("packets asked about", asked),
    )
    return Report("The self-check", _HOW, figures, (), samples)


def _measure(host: Subject) -> tuple[dict[str, list[float]], int]:
    prepared = host.prepare()
    config, facts, uplinks = prepared.config, prepared.facts, prepared.uplinks

    def questions() -> object:
        return self_check.questions(config, facts, uplinks, prepared.desired)

    def answers() -> object:
        return self_check.find(config, facts, uplinks, ask(prepared.questions, facts))

    assert answers() == ()
    samples = {
        "questions": times_ms(questions, _TIMES),
        "answers": times_ms(answers, _TIMES),
        "look": times_ms(read_facts, _TIMES),
    }
    return samples, len(prepared.questions)
