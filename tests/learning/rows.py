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
    words = [f'callsheet run {self.agent}', f'--env={self.environment}', *self.flags]
    if self.dataset is not None:
      words.append(f'--dataset=runs/{self.dataset}-{BACKENDS[0]}-seed{SEEDS[0]}')
    return ' '.join(words)


_GYMNASIUM = "[Gymnasium's threshold](https://gymnasium.farama.org)"
_ZOO = (
  "[rl-baselines3-zoo's SAC]"
  '(https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md)'
)
_BSUITE = '[always right](https://github.com/google-deepmind/bsuite)'
# One actor of few environments: such agents need few steps, and the cores for learning.
_FEW = ('--num_actors=1', '--num_environments=4', '--num_episodes=10')
_CARTPOLE_DATA = 'dqn-CartPole-v1'
_PENDULUM_DATA = 'mpo-Pendulum-v1'

ROWS = (
  Row('dqn', 'CartPole-v1', 475, _GYMNASIUM, ('--replay_checkpoint',)),
  Row('dqn', 'Acrobot-v1', -100, _GYMNASIUM),
  Row('rainbow', 'CartPole-v1', 475, _GYMNASIUM),
  Row('r2d2', 'bsuite/memory_size/4', 1, _BSUITE),
  Row('r2d2', 'MaskedCartPole-v1', 475, _GYMNASIUM),
  Row('impala', 'CartPole-v1', 475, _GYMNASIUM),
  Row('impala', 'MaskedCartPole-v1', 475, _GYMNASIUM, ('--lstm_size=64',)),
  Row('ppo', 'CartPole-v1', 475, _GYMNASIUM),
  Row('ppo', 'MaskedCartPole-v1', 475, _GYMNASIUM, ('--lstm_size=64',)),
  Row(
    'ppo',
    'Pendulum-v1',
    -157,
    _ZOO,
    ('--discount=0.9', '--num_epochs=10', '--num_minibatches=16'),
  ),
  Row('sac', 'Pendulum-v1', -157, _ZOO, _FEW),
  Row('sac_discrete', 'CartPole-v1', 475, _GYMNASIUM),
  Row('td3', 'Pendulum-v1', -157, _ZOO, _FEW),
  Row('ddpg', 'Pendulum-v1', -157, _ZOO, _FEW),
  Row('d4pg', 'Pendulum-v1', -157, _ZOO, (*_FEW, '--v_min=-1200', '--v_max=0')),
  Row('mpo', 'Pendulum-v1', -157, _ZOO, ('--num_episodes=10', '--replay_checkpoint')),
  Row(
    'dmpo',
    'Pendulum-v1',
    -157,
    _ZOO,
    ('--num_episodes=10', '--v_min=-1000', '--v_max=0'),
  ),
  Row('bc', 'CartPole-v1', 475, _GYMNASIUM, dataset=_CARTPOLE_DATA),
  Row('cql', 'CartPole-v1', 475, _GYMNASIUM, ('--penalty=1',), _CARTPOLE_DATA),
  Row('iql', 'CartPole-v1', 475, _GYMNASIUM, dataset=_CARTPOLE_DATA),
  Row('crr', 'CartPole-v1', 475, _GYMNASIUM, dataset=_CARTPOLE_DATA),
  Row('td3_bc', 'Pendulum-v1', -157, _ZOO, dataset=_PENDULUM_DATA),
)
