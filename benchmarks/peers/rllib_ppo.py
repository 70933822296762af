"""RLlib's PPO as its own tuned CartPole-v1 example configures it."""

import os

import ray
import target
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME


def main():
  options = target.options()
  check = target.Target(
    options,
    ('ray', 'torch', 'gymnasium', 'numpy'),
    'tuned_examples/ppo/cartpole_ppo.py, 2 environment runners',
  )
  ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
  config = (
    PPOConfig()
    .environment('CartPole-v1')
    .debugging(seed=options.seed)
    .env_runners(num_env_runners=RUNNERS, num_envs_per_env_runner=ENVIRONMENTS)
    .training(lr=0.0003, num_epochs=6, vf_loss_coeff=0.01)
    .rl_module(
      model_config=DefaultModelConfig(
        fcnet_hiddens=[32], fcnet_activation='linear', vf_share_layers=True
      )
    )
  )
  algorithm = config.build_algo()

  @torch.no_grad()
  def act(observations):
    module = algorithm.get_module()
    inputs = {Columns.OBS: torch.from_numpy(observations)}
    outputs = module.forward_inference(inputs)
    return outputs[Columns.ACTION_DIST_INPUTS].argmax(-1).numpy()

  check.begin()
  steps, over = 0, False
  while not over:
    results = algorithm.train()
    steps = results['env_runners'][NUM_ENV_STEPS_SAMPLED_LIFETIME]
    over = check.due() and check.reached(act, steps)
  ray.shutdown()


# A core each; the learner is in the process that waits for them.
RUNNERS, ENVIRONMENTS = 2, 1


if __name__ == '__main__':
  main()
