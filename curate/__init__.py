"""The ground every other folder stands on: the version and the errors."""

__version__ = "0.1.0"
