"""Launchpad (dm-launchpad 0.5.2, Python 3.10), in both directions.

`Launchpad` runs our programs by it and `as_launchpad` compiles one for `lp.launch`;
`service_node` puts a service of ours into a Launchpad program; `adopt` and `foreign`
bring Launchpad's classes and running nodes into ours. Nothing here imports Launchpad,
which imports TensorFlow, before it is used. Calls between nodes of ours never go
through Launchpad's courier, which waits for ever when an argument is an array.
"""

from callsheet.launch.launchpad.adopted import adopt, client
from callsheet.launch.launchpad.backend import Launchpad
from callsheet.launch.launchpad.compiled import as_launchpad, service_node
from callsheet.launch.launchpad.foreign import array_proof, foreign

__all__ = [
  'Launchpad',
  'adopt',
  'array_proof',
  'as_launchpad',
  'client',
  'foreign',
  'service_node',
]
