"""Fuzzing: what comes from the Internet, a local user, the kernel or a disk keeps to its rules.

A target is a module in `targets` with

    one(data)    puts one input into the code; raises for a crash, and for a rule that is broken
    seeds()      inputs to begin with, real ones where there are any
    KIND         "bytes", or "json" and "text" for inputs whose structure is worth keeping
    WORDS        of a text: values to put into it

`./dev fuzz` runs them under libFuzzer (atheris), `test_fuzz` what is known already. One input, one
outcome: a target keeps nothing between two inputs.
"""
