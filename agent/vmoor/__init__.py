"""vmoor moors virtual machines to an Istio mesh."""

__version__ = "0.1.0"
