"""The stages: refs in, refs out, with tracking and publication around the work.

Importing the package silences the libraries that call home, before any of them is imported.
"""

from tasks.settings import silence_telemetry

silence_telemetry()
