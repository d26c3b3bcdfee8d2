"""The daemon: the engine, which has the rights, and the face, which hears the Internet."""
