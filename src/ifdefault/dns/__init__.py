"""What the DNS is to say, and how it is said.

Rules: pure: `now` is an argument, bytes come in and go out. `publish` turns the decision into names
and addresses; `table` and `answer` are the embedded server's; nothing here opens a socket.
"""
