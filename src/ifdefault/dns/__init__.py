"""The DNS without sockets: the data to publish, the server, updates, and checks of a delegation.

Rules: pure; `now` is an argument, messages are bytes. `publish` turns the decision into names and
addresses; `table` and `answer` are the embedded server; `update` is the state of dynamic updates;
`survey` and `diagnose` check a delegation.
"""
