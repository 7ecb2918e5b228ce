# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
Dynamic split computing for robots: head on the robot, tail on the edge, the split moved while it runs.

The public names of the library stand here. Each is imported when it is first used, so that ``import dynsplit_ros`` and
the generated messages in ``dynsplit_ros.msg`` do not bring torch with them.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

# Python finds the source folder first in a program that is started in the repository's root. The generated messages are
# only in the built package, a folder of the same name further on in sys.path.
__path__ = extend_path(__path__, __name__)

#: The public names, by the module below this package that each comes from.
PUBLIC = {
    'errors': ('DynsplitError',),
    'model': ('load_model', 'LoadedModel', 'model_names', 'name_outputs'),
    'partition': ('SplitModel', 'Cut', 'UntraceableError'),
    'tensors': ('TensorSpec',),
    'codec': ('encode', 'decode', 'EncodedTensor', 'CODECS', 'CodecInfo', 'usable_codecs'),
    'tasks': ('interpret', 'Result', 'output_digest'),
    'profile.measure': ('measure',),
    'profile.profile': ('Profile', 'merge', 'SystemProfile'),
    'policies.monitor': ('MonitorPolicy',),
    'policies.monitor_settings': ('MonitorSettings',),
    'policies.records': ('SplitDecision', 'FrameRecord'),
    'estimators.link': ('LinkEstimate', 'Probe'),
    'estimators.load': ('LoadEstimate', 'LoadReport'),
}

if TYPE_CHECKING:
    from dynsplit_ros.codec import *  # noqa: F401, F403
    from dynsplit_ros.errors import *  # noqa: F401, F403
    from dynsplit_ros.estimators.link import *  # noqa: F401, F403
    from dynsplit_ros.estimators.load import *  # noqa: F401, F403
    from dynsplit_ros.model import *  # noqa: F401, F403
    from dynsplit_ros.partition import *  # noqa: F401, F403
    from dynsplit_ros.policies.monitor import *  # noqa: F401, F403
    from dynsplit_ros.policies.monitor_settings import *  # noqa: F401, F403
    from dynsplit_ros.policies.records import *  # noqa: F401, F403
    from dynsplit_ros.profile.measure import *  # noqa: F401, F403
    from dynsplit_ros.profile.profile import *  # noqa: F401, F403
    from dynsplit_ros.tasks import *  # noqa: F401, F403
    from dynsplit_ros.tensors import *  # noqa: F401, F403
else:
    import importlib

    _MODULES = {name: module for module, names in PUBLIC.items() for name in names}
    __all__ = list(_MODULES)

    def __getattr__(name):
        if name not in _MODULES:  # also asked for submodules that are not imported yet
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        value = getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
