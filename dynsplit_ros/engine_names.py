# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What engines are called in profiles and messages; without torch, which the monitor does not need."""

from __future__ import annotations

#: The engine that every machine has: PyTorch in float32, operation by operation.
EAGER = 'eager'
Engines = tuple[str, str]
"""Engine of the head and engine of the tail."""
#: What the parameter ``engine`` may be: the keys of :data:`dynsplit_ros.engines.ENGINES`, which brings torch.
ENGINE_NAMES = (EAGER, 'inductor', 'openvino', 'onnxruntime')
#: The data types that a user may ask for; each engine offers some of them, and none offers the last one.
PRECISIONS = ('float32', 'float16', 'bfloat16', 'int8')


def engine_name(engine: str, precision: str) -> str:
    """Return the one name of an engine at a precision, such as openvino or openvino-bfloat16."""
    return engine if precision == 'float32' else f'{engine}-{precision}'


def version_key(engine: str) -> str:
    """Return the entry of a profile's ``measured`` that holds the version of an engine other than eager."""
    return f'version of {engine}'
