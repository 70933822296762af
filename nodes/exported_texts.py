"""What lies beside an exported policy: how to load it, for whoever has jax alone."""

LOADER = '''"""Loads the policy in this folder; needs jax, and nothing of Callsheet."""

import pathlib

import jax
import jax.export
import numpy as np


class Policy:
  """Acts in a batch of B environments, step after step.

  policy = Policy(num_environments=1)
  action = policy(observation)      # [B, ...] -> [B, ...]
  policy.reset([True])              # an episode begins in these environments
  """

  def __init__(self, num_environments=1, seed=0, folder=None):
    folder = pathlib.Path(folder or pathlib.Path(__file__).parent)
    blob = bytearray((folder / 'policy.jax').read_bytes())
    self._act = jax.jit(jax.export.deserialize(blob).call)
    with np.load(folder / 'carry.npz') as saved:
      rows = [saved[name] for name in saved.files]
    self._first = tuple(np.repeat(row, num_environments, axis=0) for row in rows)
    self._carry, self._key = self._first, jax.random.PRNGKey(seed)

  def __call__(self, observation):
    self._key, key = jax.random.split(self._key)
    action, self._carry = self._act(np.asarray(observation), self._carry, key)
    return np.asarray(action)

  def reset(self, begins):
    begins = np.asarray(begins)
    self._carry = tuple(
      np.where(begins.reshape(-1, *[1] * (first.ndim - 1)), first, np.asarray(row))
      for first, row in zip(self._first, self._carry)
    )
'''

README = """# A policy

Played as it is meant to be in the end, without exploration, on CPU, CUDA or TPU, for
any number of environments at once. It needs jax, of the version in `policy.json` or a
newer one (jax keeps what it exports readable for at least six months), and flatbuffers,
which jax.export reads its files with: `pip install jax flatbuffers`.

```python
from policy import Policy

policy = Policy(num_environments=1)
action = policy(observation)  # float32 [1, ...] -> [1, ...]
```

`policy.jax` is the function `(observation [B, ...], carry, key) -> (action, carry)`, as
`jax.export` serializes it, its parameters included; `carry.npz` is what the carry
of one environment begins with; `policy.json` says what it was
trained on. `callsheet eval FOLDER` plays it.
"""
