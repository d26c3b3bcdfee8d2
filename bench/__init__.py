"""The measurements behind docs/figures.md: `./dev bench [NAME…]`.

Rules: a bench is a function that measures and returns a `results.Report`; it writes nothing. What
was measured is in `results/NAME.json`, with the machine it was measured on and every sample; the
page is rendered from these files alone and never typed by hand. Targets are part of the report, and
whether they are met is computed from the figures.
"""
