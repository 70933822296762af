"""Sample Factory's APPO, told what its own CartPole-v1 example is told."""

import os
import sys
import tempfile

import target
import torch
from sample_factory.algo.learning.learner import Learner
from sample_factory.algo.runners.runner import AlgoObserver
from sample_factory.algo.utils.action_distributions import argmax_actions
from sample_factory.algo.utils.rl_utils import prepare_and_normalize_obs
from sample_factory.model.actor_critic import create_actor_critic
from sample_factory.model.model_utils import get_rnn_size
from sample_factory.train import make_runner
from sf_examples.train_gym_env import parse_custom_args, register_custom_components

FLAGS = {
  'algo': 'APPO',
  'env': 'CartPole-v1',
  'use_rnn': False,
  'num_envs_per_worker': 20,
  'policy_workers_per_policy': 2,
  'recurrence': 1,
  'with_vtrace': False,
  'batch_size': 512,
  'reward_scale': 0.1,
  'device': 'cpu',
  # A checkpoint a second is what the check plays.
  'save_every_sec': 1,
}


class Check(AlgoObserver):
  """Plays the newest checkpoint, in the process that only looks on."""

  def __init__(self, check):
    self._check, self._seen, self._model, self._config = check, None, None, None

  def on_start(self, runner):
    self._check.begin()

  def on_training_step(self, runner, training_iteration_since_resume):
    if not self._check.due() or runner.stopped:
      return
    self._config = runner.cfg
    folder = Learner.checkpoint_dir(runner.cfg, 0)
    found = Learner.get_checkpoints(folder, 'checkpoint_*')[-1:]
    late = self._check.late()
    if (not found or found[0] == self._seen) and not late:
      return
    if found and found[0] != self._seen:
      self._load(runner, found)
      over = self._check.reached(self._act, runner.env_steps[0])
    else:
      self._check.report(False, runner.env_steps.get(0, 0))
      over = True
    if over:
      # Nothing is left to be kept; race.py ends the other processes.
      os._exit(0)

  def _load(self, runner, found):
    if self._model is None:
      info = runner.env_info
      self._model = create_actor_critic(runner.cfg, info.obs_space, info.action_space)
      self._model.eval()
      self._model.model_to_device(torch.device('cpu'))
    saved = torch.load(found[0], map_location='cpu', weights_only=False)
    self._model.load_state_dict(saved['model'])
    self._seen = found[0]

  @torch.no_grad()
  def _act(self, observations):
    size = get_rnn_size(self._config)
    inputs = prepare_and_normalize_obs(
      self._model, {'obs': torch.from_numpy(observations)}
    )
    self._model(inputs, torch.zeros([len(observations), size]))
    return argmax_actions(self._model.action_distribution()).numpy().reshape(-1)


def main():
  options = target.options()
  packages = ('sample-factory', 'torch', 'gymnasium', 'numpy')
  words = "train_gym_env.py's CartPole-v1 line: 2 workers of 20 environments"
  torch.set_num_threads(1)
  check = target.Target(options, packages, words, beside=True)
  # Its processes print to standard output; the one line goes out by itself.
  with tempfile.TemporaryDirectory() as folder:
    flags = {**FLAGS, 'seed': options.seed, 'train_dir': folder, 'experiment': 'race'}
    register_custom_components()
    config = parse_custom_args([f'--{name}={value}' for name, value in flags.items()])
    _, runner = make_runner(config)
    runner.register_observer(Check(check))
    runner.init()
    runner.run()


if __name__ == '__main__':
  sys.exit(main())
