"""A stand-in for AppleNeuralEngine.framework and IOSurface.framework, on GNUstep: for tests only, never packaged."""

from .control import count, environment, get, names, path, put, reason, reset, switched

__all__ = ["count", "environment", "get", "names", "path", "put", "reason", "reset", "switched"]
