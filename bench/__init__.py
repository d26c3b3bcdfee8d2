"""The measurements behind docs/figures.md: `./dev bench [NAME…]`.

Rules: a bench is a function that measures and returns a `results.Report`; it writes nothing. The
results are in `results/NAME.json`, with the machine and every sample; the page is rendered from
these files alone. Targets are part of the report, and whether they are met is computed from the
figures.
"""
