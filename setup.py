"""Installs as `callsheet`; the folders at the top are linked below src/callsheet."""

from itertools import chain
from pathlib import Path

from setuptools import find_packages, setup

# dm-launchpad links against TensorFlow 2.8 and has no wheel past Python 3.10;
# requirements.lock holds the whole set that was seen to work together there.
OLD = 'python_version < "3.11"'
# From 2.49 on Ray needs a protobuf that TensorFlow 2.8 can't load.
RAY = [f'ray[default]==2.48.0; {OLD}', 'ray[default]>=2.48']
# tensorboardX 2.6 is the last that takes the protobuf of TensorFlow 2.8.
TENSORBOARD = [f'tensorboardX==2.6; {OLD}', 'tensorboardX>=2.6']
PROMETHEUS = ['prometheus-client>=0.19']
YAML = ['pyyaml>=6']
# labmaze, which dm-control needs, has no wheel past Python 3.12.
ENVIRONMENTS = {
  'atari': ['ale-py>=0.11', 'opencv-python-headless>=4.8'],
  'box2d': ['gymnasium[box2d]'],
  'bsuite': ['bsuite>=0.3.5'],
  'dm_control': ['dm-control>=1.0.20; python_version < "3.13"'],
  # Linux alone, and no wheel past Python 3.11.
  'envpool': [
    'envpool>=0.8.4; python_version < "3.12" and sys_platform == "linux" and '
    'platform_machine == "x86_64"'
  ],
  'minari': ['minari[hdf5]>=0.5'],
  'minatar': ['minatar>=1.0.15'],
  'mujoco': ['gymnasium[mujoco]'],
}

setup(
  name='callsheet',
  version='0.1.0',
  description='Program graphs for reinforcement learning, launched anywhere',
  long_description=Path('README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  package_dir={'': 'src'},
  packages=find_packages('src'),
  package_data={
    'callsheet': ['py.typed'],
    'callsheet.launch.page': ['*.html', '*.css', '*.js'],
  },
  python_requires='>=3.10',
  install_requires=[
    f'dm-launchpad==0.5.2; {OLD}',
    f'dm-reverb==0.7.2; {OLD}',
    f'tensorflow-cpu==2.8.4; {OLD}',
    f'protobuf==3.19.6; {OLD}',
    f'numpy==1.26.4; {OLD}',
    f'jax==0.6.2; {OLD}',
    f'chex==0.1.90; {OLD}',
    'numpy>=1.26',
    'jax>=0.6.2',
    'dm-haiku>=0.0.17',
    'optax>=0.2.8',
    'rlax>=0.1.7',
    'dm-env>=1.6',
    'absl-py>=2.1',
    'cloudpickle>=3.0',
    'gymnasium>=1.1',
    'matplotlib>=3.9',
    'orbax-checkpoint>=0.11',
    'packaging>=23',
    'rich>=13',
  ],
  extras_require={
    'ray': RAY,
    'kubernetes': YAML,
    'tensorboard': TENSORBOARD,
    'prometheus': PROMETHEUS,
    'wandb': ['wandb>=0.18'],
    **ENVIRONMENTS,
    'environments': [*chain(*ENVIRONMENTS.values())],
    'dev': [
      *chain(*ENVIRONMENTS.values()),
      *RAY,
      *YAML,
      *TENSORBOARD,
      *PROMETHEUS,
      'hypothesis>=6',
      'jsonschema>=4',
      'kubernetes-validate>=1.31',
      'mypy>=1.15',
      'psutil>=6',
      'pytest>=8',
      'pytest-timeout>=2.3',
      'pytest-xdist>=3.6',
      'ruff>=0.9',
      'setuptools>=68',
    ],
  },
  entry_points={'console_scripts': ['callsheet = callsheet.commands.main:main']},
)
