"""Sketches of a part, which a real scan computes in its own pass; a worker imports this module alone."""

from __future__ import annotations

import numpy as np

from data.rows.parts import Part, texts_of
from data.rows.sketch import sketches_of


def sketch_part(part: Part) -> None:
    sketches = [sketches_of(texts_of(rows.to_series())) for rows in part.rows()]
    np.concatenate(sketches).tofile(part.path("sketches"))
