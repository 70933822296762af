"""What each agent is shown to learn: the rows of the table in agents/README.md."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = (0, 1, 2)
BACKENDS = ('processes', 'threads')


@dataclass(frozen=True)
class Row:
  """An agent in an environment, and what it has to reach there.

  Attributes:
    agent: its name in the registry.
    environment: its name for `--env`.
    target: mean undiscounted return over a batch of greedy episodes, and over as many
      fresh ones.
    source: where the target comes from, as Markdown.
    flags: of `callsheet run`, beside agent, environment, seed and backend.
    dataset: the row whose runs leave the replay that this one learns from, offline.
  """

  agent: str
  environment: str
  target: float
  source: str
  flags: tuple[str, ...] = ()
  dataset: str | None = None

  @property
  def name(self) -> str:
    """For test ids and run folders."""
    return f'{self.agent}-{self.environment.replace("/", "-")}'

  def folder(self, backend: str, seed: int) -> str:
    """The name of a run's folder."""
    return f'{self.name}-{backend}-seed{seed}'

  def command(self) -> str:
    """What a reader types."""
    return ' '.join(
      [f'callsheet run {self.agent}', f'--env={self.environment}', *self.flags]
    )


_GYMNASIUM = "[Gymnasium's threshold](https://gymnasium.farama.org)"

ROWS = (Row('dqn', 'CartPole-v1', 475, _GYMNASIUM),)
