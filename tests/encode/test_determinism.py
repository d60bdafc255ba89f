"""What is written doesn't depend on how many threads the libraries below use: all workers write the same.

A difference in the last bit seldom changes a chunk, so what chunks are computed from is compared.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CALCULATIONS = """
import hashlib
import numpy as np
import norbert_store
from norbert_store._jpeg import cosine
from norbert_store._encode.masking import EarModel
from norbert_store._spectra.bins import stored_transform

rng = np.random.default_rng(0)
magnitude = rng.uniform(0, 0.5, (259, 1025)).astype(np.float32)
mel = stored_transform(norbert_store.Mel(rate=44100, n_mels=128))
ear = EarModel(np.arange(1025) * 44100 / 2048, 44100 / 1024)
coefficients = cosine.forward(255 * magnitude)
for found in (mel.reduce(magnitude), ear.weights(magnitude), coefficients, cosine.inverse(coefficients, 259, 1025)):
    print(hashlib.sha256(np.ascontiguousarray(found)).hexdigest())
"""


@pytest.mark.slow
def test_calculations_are_the_same_however_many_threads_there_are():
    found = []
    for threads in ("1", "2", "3"):
        variables = {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL")}
        command = [sys.executable, "-c", CALCULATIONS]
        found.append(subprocess.check_output(command, env={**os.environ, **variables}, text=True).split())
    assert len(found[0]) == 4
    assert found[1] == found[0]
    assert found[2] == found[0]
