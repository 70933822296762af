"""stable-baselines3's PPO as rl-baselines3-zoo tuned it for CartPole-v1."""

import target
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

BUDGET = 100_000
CONFIG = {
  'n_steps': 32,
  'batch_size': 256,
  'gae_lambda': 0.8,
  'gamma': 0.98,
  'n_epochs': 20,
  'ent_coef': 0.0,
}


class Check(BaseCallback):
  """Ends the training at the target, between one update and the next rollout."""

  def __init__(self, check):
    super().__init__()
    self._check, self._over = check, False

  def _on_rollout_start(self):
    if self._check.due():
      self._over = self._check.reached(self._act, self.num_timesteps)

  def _on_step(self):
    return not self._over

  def _act(self, observations):
    return self.model.predict(observations, deterministic=True)[0]

  @property
  def over(self):
    return self._over


def main():
  options = target.options()
  # Small matrices: a second thread costs more than it brings.
  torch.set_num_threads(1)
  check = target.Target(
    options,
    ('stable-baselines3', 'torch', 'gymnasium', 'numpy'),
    'rl-baselines3-zoo: 8 environments, rates falling over 100,000 steps; 1 thread',
  )
  model = PPO(
    'MlpPolicy',
    make_vec_env('CartPole-v1', n_envs=8, seed=options.seed),
    learning_rate=lambda left: 0.001 * left,
    clip_range=lambda left: 0.2 * left,
    seed=options.seed,
    device='cpu',
    **CONFIG,
  )
  callback = Check(check)
  check.begin()
  model.learn(BUDGET, callback=callback)
  if not callback.over:
    check.report(False, model.num_timesteps)


if __name__ == '__main__':
  main()
