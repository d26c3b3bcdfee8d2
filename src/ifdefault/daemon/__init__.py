"""The daemon: the engine, which has the rights, and the frontend, which hears the Internet."""
