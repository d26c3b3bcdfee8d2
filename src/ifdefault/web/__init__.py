"""The web server: the page, the API, and metrics; a process without privileges."""
