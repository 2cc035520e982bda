"""Handlers that come with fasthook. Each is found by its entry point, like anybody's."""
