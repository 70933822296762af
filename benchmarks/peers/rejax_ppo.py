"""rejax's PPO, environments and all on the device, as its repository configures it."""

import jax
import jax.numpy as jnp
import rejax
import target

CONFIG = {
  'env': 'CartPole-v1',
  'agent_kwargs': {'activation': 'tanh'},
  'num_envs': 5,
  'num_steps': 100,
  'num_epochs': 5,
  'num_minibatches': 5,
  'learning_rate': 0.00075,
  'max_grad_norm': 0.5,
  'gamma': 0.99,
  'gae_lambda': 0.95,
  'clip_eps': 0.2,
  'ent_coef': 0.01,
  'vf_coef': 0.5,
}
# Environment steps in one call: what its configuration trains between evaluations.
CHUNK = 1_000


def main():
  options = target.options()
  check = target.Target(
    options,
    ('rejax', 'gymnax', 'jax', 'flax', 'numpy'),
    'configs/gymnax/cartpole.yaml: 5 environments of gymnax, 100 steps a rollout',
  )
  algorithm = rejax.get_algo('ppo').create(
    **CONFIG, total_timesteps=CHUNK, eval_freq=CHUNK, skip_initial_evaluation=True
  )
  # Its own evaluation inside `train` would be a second one.
  algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())

  @jax.jit
  def train(state):
    return algorithm.train(train_state=state)[0]

  @jax.jit
  def greedy(parameters, observations):
    both = jnp.array([0, 1])

    def likelier(observation):
      twice = jnp.stack([observation, observation])
      logits, _ = algorithm.actor.apply(
        parameters, twice, both, method='log_prob_entropy'
      )
      return jnp.argmax(logits)

    return jax.vmap(likelier)(observations)

  state = algorithm.init_state(jax.random.PRNGKey(options.seed))
  check.begin()
  while True:
    state = train(state)
    jax.block_until_ready(state)
    parameters = state.actor_ts.params
    if check.due() and check.reached(
      lambda observations, p=parameters: greedy(p, observations), state.global_step
    ):
      return


if __name__ == '__main__':
  main()
