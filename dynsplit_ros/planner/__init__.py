# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The predicted latency of each choice of split and codec, and the choice."""

from dynsplit_ros.planner.alternation import STEADY_SPREAD
from dynsplit_ros.planner.choices import codecs_to_choose_from, engines_below, engines_to_use, local_engine_to_use
from dynsplit_ros.planner.constraints import ALL_CODECS, OBJECTIVES, PlannerConstraints
from dynsplit_ros.planner.hysteresis import EdgeHysteresis
from dynsplit_ros.planner.latency import SystemEstimate
from dynsplit_ros.planner.planner import Candidate, Plan, Planner

__all__ = [
    'ALL_CODECS',
    'Candidate',
    'codecs_to_choose_from',
    'EdgeHysteresis',
    'engines_below',
    'engines_to_use',
    'local_engine_to_use',
    'OBJECTIVES',
    'Plan',
    'Planner',
    'PlannerConstraints',
    'STEADY_SPREAD',
    'SystemEstimate',
]
