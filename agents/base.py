"""What an agent is: pure functions, what an actor writes, and how a learner samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from callsheet.errors import UsageError

if TYPE_CHECKING:  # A replay or a recorder knows these classes and needs no JAX.
  import chex
  import jax
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
    steps: the time steps that it is fed with, by `Replay.append`, where its items
      share them; None where whole items are inserted. `step_tables.step_table` makes
      such a table.
  """

  name: str
  columns: Mapping[str, specs.Array]
  max_size: int
  sampler: Selector = 'uniform'
  priority_exponent: float = 0.6
  max_times_sampled: int = 0
  limiter: Limiter = Limiter()
  remover: Selector = 'fifo'
  steps: Steps | None = None

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

  Attributes:
    table: that it goes to.
    n_step: the rewards that are summed up.
    discount: the agent's, per step.
    num_stacked: frames that an observation consists of, the newest last; before an
      episode's beginning its first one is repeated. What is fed with time steps holds
      single frames.
    stack_axis: of an observation, along which they are.
  """

  table: str
  n_step: int
  discount: float
  num_stacked: int = 1
  stack_axis: int = -1


@dataclass(frozen=True)
class Sequences:
  """An actor writes sequences of L = `sequence_length` steps, L + 1 observations.

  One begins at every `period` steps: with `period == sequence_length` they are whole
  rollouts (the unrolls of IMPALA, https://arxiv.org/abs/1802.01561), which share but an
  observation, with a smaller one they overlap (R2D2).

  Within an episode they begin at its steps 0, `period`, `2 period`, ...; the one in
  which the episode ends is its last and may be shorter. Or else they run on over the
  ends of episodes, each of full length.

  Columns, of an item of length l <= L, with row t the time step that it shows at t:
    `observation` `[L + 1, ...]` and `step_type` `[L + 1]` int32: of rows 0 to l; behind
      them the last one is repeated.
    `action` `[L, ...]`: chosen on row t, led to row t + 1.
    `reward`, `discount` `[L]` float32: the environment's own, of row t + 1.
    `mask` `[L]` bool: whether that is a step of an episode; False behind l, and where
      LAST leads to the next episode's FIRST. There action, reward, discount and extras
      are 0.
    The table's extras, `[L, ...]`: what the policy gave along with the action.

  Attributes:
    table: that it goes to, one that is fed with time steps.
    sequence_length: L, at least 1.
    period: from one beginning to the next, 1 to L.
    cross_episodes: whether they run on over the ends of episodes.
    num_stacked: see `NStep`.
    stack_axis: see `NStep`.
  """

  table: str
  sequence_length: int
  period: int
  cross_episodes: bool = False
  num_stacked: int = 1
  stack_axis: int = -1


@dataclass(frozen=True)
class Steps:
  """The time steps that a table is fed with, and what it makes of them.

  Attributes:
    writes: its items.
    observation: of one environment, all of its stacked frames.
    action: of one environment.
    extras: what else comes with each action, such as its log-probability or the
      recurrent state that it was chosen in, by name.
    max_steps: single time steps held; the oldest go first, and the items that show
      them. None takes what `max_size` items need while episodes are long.
  """

  writes: NStep | Sequences
  observation: specs.Array
  action: specs.Array
  extras: Mapping[str, specs.Array] = field(default_factory=dict)
  max_steps: int | None = None


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
    initial_carry: `B -> carry` for a batch of B environments, arrays `[B, ...]`. Where
      an environment's episode begins, whoever acts puts its row there.
    writes: what an actor makes of its experience.
    samples: what one update takes.
    tables: what the replay has to hold.
    config: shown in the run's folder.
    on_policy: whether it learns from what its newest policy did. Then a dispatch is one
      update, nothing is drawn ahead of it, each is published, and actors take the
      newest parameters for each block that they write.
    sharding: `(mesh, state's shapes) -> NamedSharding of each array` of the state,
      where a learner has several devices; the mesh's one axis is 'data'. None puts the
      whole state on each of them.
  """

  name: str
  spec: EnvironmentSpec
  init: Callable[[chex.PRNGKey], State]
  update: Callable[[State, Batch], tuple[State, Metrics]]
  parameters: Callable[[State], Params]
  policy: Policy
  evaluation_policy: Policy
  initial_carry: Callable[[int], Carry]
  writes: NStep | Sequences
  samples: Sampling
  tables: tuple[Table, ...]
  config: Mapping[str, Any] = field(default_factory=dict)
  on_policy: bool = False
  sharding: Callable[[jax.sharding.Mesh, State], Any] | None = None

  def __post_init__(self) -> None:
    """Refuses tables that are written to or sampled but not declared, and batches that
    are larger than all that their table ever holds: of one that hands over each item a
    few times, and is filled meanwhile, a batch may be larger.

    Raises:
      UsageError: names the agent, the table and the numbers.
    """
    by_name = {table.name: table for table in self.tables}
    for verb, name in (
      ('writes to', self.writes.table),
      ('samples', self.samples.table),
    ):
      if name not in by_name:
        raise UsageError(
          f'agent {self.name!r} {verb} the table {name!r}, but declares '
          f'{sorted(by_name)}: Agent(..., tables=(Table({name!r}, ...),))'
        )
    table, batch_size = by_name[self.samples.table], self.samples.batch_size
    if batch_size < 1 or (batch_size > table.max_size and not table.max_times_sampled):
      raise UsageError(
        f'agent {self.name!r} samples batches of {batch_size} from the table '
        f'{table.name!r}, expected 1 to its max_size, {table.max_size}'
      )
