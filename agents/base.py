"""What an agent is: pure functions, what an actor writes, and how a learner samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:  # A replay or a recorder knows these classes and needs no JAX.
  import chex
  from dm_env import specs

Params = Any
State = Any
Carry = Any
Metrics: TypeAlias = 'Mapping[str, chex.Array]'


class EnvironmentSpec(NamedTuple):
  """What one environment (not a batch of them) shows and takes."""

  observation: specs.Array
  action: specs.Array


# How an item is chosen, to be drawn or to leave.
Selector: TypeAlias = Literal[
  'uniform', 'prioritized', 'fifo', 'lifo', 'min_heap', 'max_heap'
]


@dataclass(frozen=True)
class Limiter:
  """When a table lets a writer or a sampler pass.

  Sampling waits until `min_size` items are stored. From then on, with
  `samples_per_insert`, items sampled are held within `error_buffer` of
  `samples_per_insert` times items inserted, whichever side runs ahead; without it
  nobody waits again. `callsheet.nodes.limiting` has the inequalities.

  Attributes:
    min_size: items that must be stored before the first sample.
    samples_per_insert: how often an item is sampled on average; None for no bound.
    error_buffer: the slack in samples to both sides of `samples_per_insert * min_size`,
      or the lowest and the highest difference themselves; None takes a tenth of
      `min_size` inserts.
  """

  min_size: int = 1
  samples_per_insert: float | None = None
  error_buffer: float | tuple[float, float] | None = None

  @classmethod
  def queue(cls, size: int) -> Limiter:
    """Each item once: nobody draws more than was written, nor writes `size` more."""
    return cls(1, 1.0, (0.0, float(size)))

  @classmethod
  def stack(cls, size: int) -> Limiter:
    """The law of `queue`; what makes a stack is its table's sampler and remover."""
    return cls.queue(size)


@dataclass(frozen=True)
class Table:
  """One table of a replay.

  The sampler chooses the items that are drawn, the remover the one that leaves where
  one more than `max_size` came in, be it that one itself:
    uniform: each as likely as the others.
    prioritized: P(i) = p_i^exponent / sum_k p_k^exponent (Schaul et al. 2016,
      https://arxiv.org/abs/1511.05952); all alike where every priority is 0.
    fifo, lifo: the oldest, the newest.
    min_heap, max_heap: that of the lowest, the highest priority; of several the one
      whose priority was set the longest ago.

  Attributes:
    name: unique in its replay.
    columns: shape and dtype of one item, by column.
    max_size: items held.
    sampler: how items are drawn.
    priority_exponent: used where sampler or remover is prioritized.
    max_times_sampled: an item leaves after so many draws; 0 for no limit.
    limiter: how acting and learning are held in proportion.
    remover: how room is made.
  """

  name: str
  columns: Mapping[str, specs.Array]
  max_size: int
  sampler: Selector = 'uniform'
  priority_exponent: float = 0.6
  max_times_sampled: int = 0
  limiter: Limiter = Limiter()
  remover: Selector = 'fifo'

  @classmethod
  def queue(cls, name: str, columns: Mapping[str, specs.Array], max_size: int) -> Table:
    """Hands over each item once, the oldest first; a full one holds writers back."""
    limiter = Limiter.queue(max_size)
    return cls(name, columns, max_size, 'fifo', 0.6, 1, limiter, 'fifo')

  @classmethod
  def stack(cls, name: str, columns: Mapping[str, specs.Array], max_size: int) -> Table:
    """Hands over each item once, the newest first; a full one holds writers back."""
    limiter = Limiter.stack(max_size)
    return cls(name, columns, max_size, 'lifo', 0.6, 1, limiter, 'lifo')


@dataclass(frozen=True)
class NStep:
  """An actor writes n-step transitions.

  Columns: `observation`, `action`, `reward` (the discounted sum of up to `n_step`
  rewards), `discount` (what multiplies the value of `next_observation`; 0 past a
  terminal step) and `next_observation`. Shorter ones close an episode.
  """

  table: str
  n_step: int
  discount: float


@dataclass(frozen=True)
class Sampling:
  """A learner draws `batch_size` items from `table` for every update."""

  table: str
  batch_size: int


class Batch(NamedTuple):
  """What `update` is given.

  Attributes:
    data: the columns, `[B, ...]` each.
    probabilities: with which each item was drawn, `[B]` float32.
    table_size: items in the table at that time, `[]` int32.
  """

  data: Mapping[str, chex.Array]
  probabilities: chex.Array
  table_size: chex.Array


Policy: TypeAlias = (
  'Callable[[Params, Carry, Any, chex.PRNGKey], tuple[chex.Array, Carry, Any]]'
)


@dataclass(frozen=True)
class Agent:
  """An algorithm as pure functions; the nodes jit them and give them processes.

  Attributes:
    name: for logs and run folders.
    spec: the environment that it was built for.
    init: `key -> state`, a pytree of arrays.
    update: `(state, batch) -> (state, metrics)`, one step of SGD; metrics are scalars,
      and `priorities`, `[B]`, where the sampled items shall get new ones.
    parameters: `state -> params`, the part that a policy needs.
    policy: `(params, carry, observation [B, ...], key) -> (action [B], carry, extras)`.
    evaluation_policy: the same, as it is meant to be played in the end.
    initial_carry: `B -> carry` for a batch of B environments.
    writes: what an actor makes of its experience.
    samples: what one update takes.
    tables: what the replay has to hold.
    config: shown in the run's folder.
  """

  name: str
  spec: EnvironmentSpec
  init: Callable[[chex.PRNGKey], State]
  update: Callable[[State, Batch], tuple[State, Metrics]]
  parameters: Callable[[State], Params]
  policy: Policy
  evaluation_policy: Policy
  initial_carry: Callable[[int], Carry]
  writes: NStep
  samples: Sampling
  tables: tuple[Table, ...]
  config: Mapping[str, Any] = field(default_factory=dict)
