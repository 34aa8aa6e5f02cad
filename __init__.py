"""Ball action spotting: features of every frame once, temporal heads in minutes."""

__version__ = "0.1.0"
