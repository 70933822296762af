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
    variant: tells rows of the same agent and environment apart.
    seeds: that are run.
    backends: that they are run in.
  """

  agent: str
  environment: str
  target: float
  source: str
  flags: tuple[str, ...] = ()
  dataset: str | None = None
  variant: str = ''
  seeds: tuple[int, ...] = SEEDS
  backends: tuple[str, ...] = BACKENDS

  @property
  def name(self) -> str:
    """For test ids and run folders."""
    words = [self.agent, self.variant, self.environment.replace('/', '-')]
    return '-'.join(filter(None, words))

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
# Of its Breakout, which has no sticky actions and ends after 1000 steps.
_GYMNAX = "[gymnax's PPO](https://github.com/RobertTLange/gymnax)"
_BSUITE = '[always right](https://github.com/google-deepmind/bsuite)'


def _zoo(agent: str) -> str:
  page = 'https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md'
  return f"[rl-baselines3-zoo's {agent}]({page})"


_CURL = (
  '[Laskin et al. 2020](https://arxiv.org/abs/2004.04136): SAC on states, 100,000 steps'
)
# As Cetin et al. 2022 print it in their table 5. Chosen once runs for SimPLe's 16.4,
# from the same table, had levelled off near 9.
_OVERTRAINED = (
  '[Kielak 2020](https://arxiv.org/abs/2003.10181): overtrained Rainbow, 400,000 frames'
)
# Small pictures, for two cores; a game ends as in Mnih et al. 2015 after five minutes.
_BREAKOUT = (
  '--env_options=screen_size=64,zero_discount_on_life_loss=true,max_frames=18000',
  '--num_actors=1',
  '--num_episodes=10',
  '--torso=shallow',
  '--hidden_sizes=256',
)
# One actor of few environments: such agents need few steps, and the cores for learning.
_FEW = ('--num_actors=1', '--num_environments=4', '--num_episodes=10')
_DM_CONTROL = (
  '--num_actors=1',
  '--num_environments=2',
  '--num_episodes=5',
)
_SAC = _zoo('SAC')
_EXPERT_DATA = 'dqn-expert-CartPole-v1'
_CARTPOLE_DATA = 'dqn-CartPole-v1'
_PENDULUM_DATA = 'mpo-Pendulum-v1'

ROWS = (
  Row('dqn', 'CartPole-v1', 475, _GYMNASIUM, ('--replay_checkpoint',)),
  Row(
    'dqn',
    'CartPole-v1',
    475,
    _GYMNASIUM,
    ('--noisy', '--epsilon=0'),
    variant='noisy',
  ),
  Row(
    'dqn',
    'CartPole-v1',
    475,
    _GYMNASIUM,
    ('--distribution=quantile',),
    variant='quantile',
  ),
  Row(
    'dqn',
    'CartPole-v1',
    475,
    _GYMNASIUM,
    ('--distribution=implicit',),
    variant='implicit',
  ),
  Row(
    'dqn',
    'CartPole-v1',
    475,
    _GYMNASIUM,
    ('--munchausen', '--double=false'),
    variant='munchausen',
  ),
  # Data of a policy that is nearly always right, for behaviour cloning.
  Row(
    'dqn',
    'CartPole-v1',
    500,
    '[the most there is](https://gymnasium.farama.org)',
    (
      '--replay_checkpoint',
      '--max_replay_size=10000',
      '--epsilon=0.05',
      '--num_episodes=100',
    ),
    variant='expert',
  ),
  Row('dqn', 'Acrobot-v1', -100, _GYMNASIUM),
  Row(
    'dqn',
    'ALE/Breakout-v5',
    9.8,
    _OVERTRAINED,
    (
      *_BREAKOUT,
      '--num_environments=8',
      '--evaluation_period=120',
      '--evaluation_epsilon=0.05',
      '--num_stacked=4',
      '--dueling',
      '--n_step=5',
      '--batch_size=32',
      '--learning_rate=0.0003',
      '--adam_epsilon=0.00015',
      '--target_update_period=500',
      '--min_replay_size=5000',
      '--max_replay_size=200000',
      '--epsilon=0.1',
    ),
    seeds=(0,),
  ),
  Row('rainbow', 'CartPole-v1', 475, _GYMNASIUM),
  Row('r2d2', 'bsuite/memory_size/4', 1, _BSUITE),
  Row('r2d2', 'MaskedCartPole-v1', 475, _GYMNASIUM),
  Row('impala', 'CartPole-v1', 475, _GYMNASIUM),
  # The LSTM is shared: of values in the hundreds, the loss would drown the policy's.
  Row(
    'impala',
    'MaskedCartPole-v1',
    475,
    _GYMNASIUM,
    (
      '--lstm_size=64',
      '--unroll_length=32',
      '--value_cost=0.002',
      '--max_gradient_norm=none',
      '--learning_rate=0.001',
    ),
  ),
  Row(
    'impala',
    'ALE/Breakout-v5',
    9.8,
    _OVERTRAINED,
    (
      *_BREAKOUT,
      '--num_environments=16',
      '--evaluation_period=150',
      '--evaluation_greedy=false',
      '--shared_torso',
      '--unroll_length=10',
      '--batch_size=8',
      '--queue_size=16',
      '--learning_rate=0.001',
      '--max_actor_steps=3000000',
    ),
    seeds=(0,),
  ),
  Row('ppo', 'CartPole-v1', 475, _GYMNASIUM),
  Row('ppo', 'MaskedCartPole-v1', 475, _GYMNASIUM, ('--lstm_size=64',)),
  Row(
    'ppo',
    'MinAtar/Breakout-v1',
    28,
    _GYMNAX,
    (
      '--num_actors=1',
      '--num_environments=64',
      '--evaluation_period=40',
      '--rollout_length=128',
      '--batch_size=64',
      '--queue_size=64',
      '--num_minibatches=8',
      '--hidden_sizes=64',
      '--entropy_cost=0.01',
      '--learning_rate=0.0025',
      '--max_actor_steps=10000000',
    ),
  ),
  Row(
    'ppo',
    'Pendulum-v1',
    -172.225,
    _zoo('PPO'),
    (
      '--discount=0.9',
      '--num_epochs=10',
      '--num_minibatches=16',
      '--learning_rate=0.0003',
      '--max_actor_steps=1000000',
    ),
  ),
  Row(
    'ppo',
    'Hopper-v5',
    2410,
    _zoo('PPO'),
    (
      '--num_episodes=10',
      '--evaluation_period=10',
      '--rollout_length=128',
      '--batch_size=16',
      '--num_epochs=10',
      '--num_minibatches=32',
      '--learning_rate=0.0003',
      '--max_actor_steps=1000000',
    ),
  ),
  Row('sac', 'Pendulum-v1', -157, _SAC, _FEW),
  Row(
    'sac',
    'dm_control/walker-walk',
    891,
    _CURL,
    (
      *_DM_CONTROL,
      '--env_options=action_repeat=2',
      '--evaluation_period=20',
      '--hidden_sizes=256,256',
      '--learning_rate=0.0005',
      '--batch_size=128',
      '--samples_per_insert=128',
    ),
  ),
  Row('sac_discrete', 'CartPole-v1', 475, _GYMNASIUM),
  Row('td3', 'Pendulum-v1', -157, _SAC, _FEW),
  Row('ddpg', 'Pendulum-v1', -157, _SAC, _FEW),
  Row('d4pg', 'Pendulum-v1', -157, _SAC, (*_FEW, '--v_min=-1200', '--v_max=0')),
  # Actions repeated as where the target comes from, or less often.
  Row(
    'd4pg',
    'dm_control/cartpole-swingup',
    835,
    _CURL,
    (
      *_DM_CONTROL,
      '--evaluation_period=10',
      '--env_options=action_repeat=4',
      '--v_max=400',
    ),
  ),
  Row('mpo', 'Pendulum-v1', -157, _SAC, ('--num_episodes=10', '--replay_checkpoint')),
  Row(
    'dmpo',
    'Pendulum-v1',
    -157,
    _SAC,
    ('--num_episodes=10', '--v_min=-1000', '--v_max=0'),
  ),
  Row(
    'bc',
    'CartPole-v1',
    475,
    _GYMNASIUM,
    ('--max_learner_steps=30000',),
    _EXPERT_DATA,
  ),
  Row('cql', 'CartPole-v1', 475, _GYMNASIUM, ('--penalty=1',), _CARTPOLE_DATA),
  Row('iql', 'CartPole-v1', 475, _GYMNASIUM, dataset=_CARTPOLE_DATA),
  Row('crr', 'CartPole-v1', 475, _GYMNASIUM, dataset=_CARTPOLE_DATA),
  Row('td3_bc', 'Pendulum-v1', -157, _SAC, dataset=_PENDULUM_DATA),
)
