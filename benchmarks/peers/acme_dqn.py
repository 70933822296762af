"""Acme's DQN in one process, with the defaults of its single-process agents."""

import warnings

import jax

# Acme's last release names what jax dropped since.
jax.interpreters.xla.Device = jax.Device
jax.interpreters.xla.DeviceArray = jax.Array
warnings.filterwarnings('ignore')

import acme  # noqa: E402
import gym  # noqa: E402
import haiku as hk  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import target  # noqa: E402
from acme import specs, wrappers  # noqa: E402
from acme.agents.jax import dqn  # noqa: E402
from acme.jax import networks, utils  # noqa: E402


class Logger(acme.utils.loggers.base.Logger):
  def write(self, data):
    del data

  def close(self):
    pass


def main():
  options = target.options()
  check = target.Target(
    options,
    ('dm-acme', 'dm-reverb', 'jax', 'dm-haiku', 'gym', 'numpy'),
    "dqn.DQN's defaults, but 32 samples per insert as in Acme's other DQN; MLP 64, 64",
  )
  environment = wrappers.wrap_all(
    gym.make('CartPole-v1'),
    [wrappers.GymWrapper, wrappers.SinglePrecisionWrapper],
  )
  spec = specs.make_environment_spec(environment)

  def q_values(observations):
    return hk.nets.MLP([64, 64, spec.actions.num_values])(observations)

  transformed = hk.without_apply_rng(hk.transform(q_values))
  dummy = utils.add_batch_dim(utils.zeros_like(spec.observations))
  network = networks.FeedForwardNetwork(
    init=lambda key: transformed.init(key, dummy), apply=transformed.apply
  )
  agent = dqn.DQN(spec, network, samples_per_insert=32.0, seed=options.seed)
  values = jax.jit(transformed.apply)

  def act(observations):
    parameters = agent.get_variables([''])[0]
    return jnp.argmax(values(parameters, observations), axis=-1)

  loop = acme.EnvironmentLoop(environment, agent, logger=Logger())
  check.begin()
  steps, over = 0, False
  while not over:
    steps += loop.run_episode()['episode_length']
    over = check.due() and check.reached(act, steps)


if __name__ == '__main__':
  main()
