"""What runs, and how it is wired: pure declaration, before anything starts."""

from callsheet.programs.handle import Handle, name_of, service_of
from callsheet.programs.plan import NodePlan, Plan, Spmd
from callsheet.programs.program import Node, Program
from callsheet.programs.resources import Always, Never, OnFailure, Resources, Restart
from callsheet.programs.silence import Silence

__all__ = [
  'Always',
  'Handle',
  'Never',
  'Node',
  'NodePlan',
  'OnFailure',
  'Plan',
  'Program',
  'Resources',
  'Restart',
  'Silence',
  'Spmd',
  'name_of',
  'service_of',
]
