"""Behavioural cloning: supervised learning of what a dataset's actions were.

- Pomerleau 1991, "Efficient training of artificial neural networks for autonomous
  navigation", https://doi.org/10.1162/neco.1991.3.1.88

The dataset's actions are made likely: discrete ones by their cross-entropy, continuous
ones as of a Gaussian whose mean is regressed, as in the baseline of Fujimoto and Gu
2021 (https://arxiv.org/abs/2106.06860), and whose one deviation is what remains.

Where this file deviates: Adam and a small network; no validation set ends the training
early, `callsheet run` keeps the best evaluated policy instead.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import optax

from callsheet.agents import checks, networks, transitions
from callsheet.agents.base import Agent, Batch, EnvironmentSpec, Metrics, Params
from callsheet.agents.heads import heads
from callsheet.agents.networks import Torso


@dataclass(frozen=True)
class BCConfig:
  """What can be chosen.

  Attributes:
    torso: the kind of network, see `networks.torso`.
    hidden_sizes: of its dense layers.
    learning_rate: Adam's.
    batch_size: transitions in one update.
    discount: of the transitions, which this agent doesn't look at.

  Raises:
    UsageError: a value out of its range.
  """

  torso: str = 'auto'
  hidden_sizes: tuple[int, ...] = (256, 256)
  learning_rate: float = 1e-3
  batch_size: int = 256
  discount: float = 0.99

  def __post_init__(self) -> None:
    checks.integer(self, 'batch_size', 1)
    checks.number(self, 'learning_rate', 0, zero=False)
    checks.number(self, 'discount', 0, 1, zero=False)
    checks.sizes(self, 'hidden_sizes')


class BCState(NamedTuple):
  """Everything that the learner holds."""

  params: Params
  opt_state: optax.OptState


def bc(
  spec: EnvironmentSpec, config: BCConfig = BCConfig(), *, torso: Torso | None = None
) -> Agent:
  """Behavioural cloning, for discrete or continuous actions; it learns from a dataset.

  Args:
    spec: of one environment.
    config: what can be chosen.
    torso: replaces the network below the policy's head: a haiku function, observations
      `[B, ...]` to features `[B, F]`, that builds its modules anew in every call.

  Raises:
    UsageError: the observations don't fit the torso, or the actions are neither
      discrete nor a vector between bounds.
  """
  head = heads('bc', spec)
  taken = networks.torso(
    'bc', spec.observation, config.torso, config.hidden_sizes, torso
  )
  network = hk.without_apply_rng(
    hk.transform(lambda inputs: head.policy(taken(inputs)))
  )
  optimizer = optax.adam(config.learning_rate)
  dtype = jax.dtypes.canonicalize_dtype(spec.observation.dtype)

  def init(key: chex.PRNGKey) -> BCState:
    params = network.init(key, jnp.zeros((1, *spec.observation.shape), dtype))
    return BCState(params, optimizer.init(params))

  def loss(params: Params, batch: Batch) -> tuple[chex.Array, chex.Array]:
    distribution = network.apply(params, batch.data['observation'])
    action = head.to_unit(batch.data['action'])
    error = jnp.abs(distribution.mode() - action)
    return -jnp.mean(distribution.log_prob(action)), jnp.mean(error)

  def update(state: BCState, batch: Batch) -> tuple[BCState, Metrics]:
    (value, error), gradients = jax.value_and_grad(loss, has_aux=True)(
      state.params, batch
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return BCState(params, opt_state), {'loss': value, 'action_error': error}

  def policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    [action] = network.apply(params, observation).sample(key, 1)
    return head.from_unit(action), carry, ()

  def evaluation_policy(
    params: Params, carry: tuple[()], observation: chex.Array, key: chex.PRNGKey
  ) -> tuple[chex.Array, tuple[()], tuple[()]]:
    return head.from_unit(network.apply(params, observation).mode()), carry, ()

  declared = transitions.one_step(spec, config.discount, config.batch_size)
  return Agent(
    name='bc',
    spec=spec,
    init=init,
    update=update,
    parameters=lambda state: state.params,
    policy=policy,
    evaluation_policy=evaluation_policy,
    initial_carry=lambda num_environments: (),
    config=dataclasses.asdict(config),
    **declared._asdict(),
  )
