"""The stages: records in, records out, with tracking and publication around the work.

Importing the package sets what other libraries read from the environment, before any of them is imported.
"""

from tasks.settings import prepare_libraries

prepare_libraries()
