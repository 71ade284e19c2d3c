"""Noise-to-norm reconstruction for industrial anomaly detection: a replication.

The method of Deng, Sun, Zhuang and Gong (Applied Sciences 2023, 13, 12436), one module for
each part of it. Nothing heavy is imported here, so that ``n2n --help`` answers at once.
"""

from importlib.metadata import version

__version__ = version("n2n")
