# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""What the ablation switches off: each mechanism of estimators, planner and pacing as a replacement in the sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import re

from bench.variants import PACKAGE, replaced


@dataclass(frozen=True)
class Switch:
    """
    A mechanism of a file (path in the package), and the pieces of text whose replacement switches it off.

    ``last_line`` is added to the file.
    """

    file: str
    name: str
    edits: tuple[tuple[str, str], ...]
    last_line: str = ''

    def __str__(self) -> str:
        return f'{Path(self.file).stem}: {self.name}'

    def change(self, source: str) -> str:
        """Return the file's source without the mechanism; raises ValueError where the switch does not fit it."""
        for old, new in self.edits:
            source = replaced(source, old, new, self.file)
        constant = self.last_line.partition(' ')[0]
        if constant and not re.search(rf'^(.*, )?{constant}\b.* = ', source, re.MULTILINE):
            raise ValueError(f'{self.file} has no constant {constant}; adapt the list of constants to the code')
        return source + self.last_line

    def apply(self, root: Path) -> None:
        """Switch the mechanism off in the copy of the package below ``root``."""
        file = root / PACKAGE / self.file
        file.write_text(self.change(file.read_text()))


def _off(file: str, name: str, *texts: str) -> Switch:
    """Return a switch; ``texts`` are old and new in turns."""
    return Switch(file, name, tuple(zip(texts[::2], texts[1::2])))


_LINK, _PROBING, _RATE = 'estimators/link.py', 'estimators/probing.py', 'estimators/rate.py'
_TRIP, _SERVICE, _LOAD = 'estimators/round_trip.py', 'estimators/service.py', 'estimators/load.py'
_LATENCY, _PLANNER, _HYSTERESIS = 'planner/latency.py', 'planner/planner.py', 'planner/hysteresis.py'
_ALTERNATION, _TIMEOUT, _AGE = 'planner/alternation.py', 'planner/timeout.py', 'planner/image_age.py'
_MONITOR, _CAMERA, _ROBOT = 'policies/monitor.py', 'policies/camera.py', 'estimators/robot.py'
_PACING, _STALENESS, _KNOWN_EDGE = 'policies/pacing.py', 'policies/staleness.py', 'policies/known_edge.py'

MECHANISMS = (
    _off(
        _LINK,
        'first heartbeats come sooner',
        'shortening = _FIRST_HEARTBEATS if self._round_trip.is_converging else 1.0',
        'shortening = 1.0',
    ),
    _off(
        _LINK,
        'acknowledgements behind an answer do not count',
        'if not possible or self._is_delayed_by_answer(back_s):',
        'if not possible:',
    ),
    _off(
        _LINK,
        'no payload before a probe measured the rate',
        'return self.alive and self._rate_measured_s == -math.inf and',
        'return False and',
    ),
    _off(_LINK, 'the edge may have paused (dispersion)', '_EDGE_PAUSED = 0.03', '_EDGE_PAUSED = 0.0'),
    _off(_LINK, 'dispersion of payloads', ' or (message.is_payload and message.size >= _MIN_DISPERSED_BYTES)', ''),
    _off(_LINK, 'small payloads have no dispersion', ' and message.size >= _MIN_DISPERSED_BYTES', ''),
    _off(
        _LINK,
        'a payload under way bounds the rate',
        'overdue = self.overdue(now_s)\n        if overdue is None:',
        'overdue = None\n        if overdue is None:',
    ),
    _off(
        _LINK,
        'heartbeats behind a payload that was given up',
        'if before and not (heartbeat and all(other.given_up for other in before)):',
        'if before:',
    ),
    _off(
        _LINK,
        'the link is blocked by a payload that was given up',
        'if message.given_up and not message.arrived]',
        'if False]',
    ),
    _off(
        _LINK,
        'round trip from the time of a payload without dispersion',
        'if message.is_payload and alone and now_s',
        'if False and now_s',
    ),
    _off(
        _LINK,
        'after a short transfer the next probe comes sooner',
        'measured = transfer_s / airtime_s if transfer_s < airtime_s else 1.0',
        'measured = 1.0',
    ),
    _off(
        _LINK,
        'missing load reports say that the link is lost',
        'return self._reports > _REGULAR_REPORTS and self._now_s - self._reported_s > longest_s',
        'return False',
    ),
    _off(
        _LINK,
        'a long pause between reports fades',
        'max(pause_s, _PAUSE_FADING * self._pause_s)',
        'max(pause_s, self._pause_s)',
    ),
    _off(_LINK, 'messages with a pause of the robot count less', 'pause_s = message.gap_s if', 'pause_s = 0.0 if'),
    _off(_PROBING, 'smaller probes after a lost one', 'self._largest = max(int(size) // 2, _FIRST_BYTES)', 'pass'),
    _off(
        _PROBING, 'leads are kept for a minute', 'if probe_s > _HIGH_JITTER * rules.probe_share', 'if False and rules'
    ),
    _off(_PROBING, 'leads of probes', 'return probe_s > rules.probe_share and saves', 'return False and saves'),
    _off(_PROBING, 'leads only where they save bytes', 'probe_share and saves', 'probe_share'),
    _off(
        _PROBING,
        'a machine that is always slow to send',
        'usual_s = _GAP_RATIO * self._least_gap_s if',
        'usual_s = 0.0 if',
    ),
    _off(
        _PROBING,
        'budget from the lower quartile of the rate',
        'rate_bps = _INCOME_SHARE * self._rate.low_bps',
        'rate_bps = _INCOME_SHARE * self._rate.median_bps',
    ),
    _off(
        _PROBING,
        'budget of leads from between quartile and median',
        'rate_bps = _LEAD_INCOME_SHARE * math.sqrt(self._rate.low_bps * self._rate.median_bps)',
        'rate_bps = _INCOME_SHARE * self._rate.low_bps',
    ),
    _off(
        _PROBING,
        'probes at once while the rate is uncertain',
        ' or (self.is_uncertain and unsent_s >= rules.probe_period_s)',
        '',
    ),
    _off(_PROBING, 'payloads instead of probes measure an uncertain rate', ' and unsent_s >= rules.probe_period_s', ''),
    _off(_PROBING, 'the first probe with a lead is on credit', ' or (plan.lead > 0 and not self._has_dispersion)', ''),
    _off(
        _PROBING,
        'a limit of the probe that confirms a rise',
        'min(self._faster_bps, _LARGEST_RISE * self._rate.median_bps)',
        'self._faster_bps',
    ),
    _off(_PROBING, 'a link without a share spends one probe', '_BUDGET_S * share * income', '_BUDGET_S * income'),
    _off(_LINK, 'the first round trip contains the bytes of a heartbeat', 'size -= self._heartbeat_size', 'pass'),
    _off(_LINK, 'probes on credit after a silence', 'self._probing.on_reconnect()', 'pass'),
    _off(_RATE, 'the grid follows a steady rate', 'if transfer > _LONG_TRANSFER:', 'if False:'),
    _off(
        _RATE,
        'three models of the link',
        '_SPREAD = np.array([0.05, 0.18, 0.45])',
        '_SPREAD = np.array([0.18, 0.18, 0.18])',
        '_DRIFT = np.array([0.02, 0.12, 0.70])',
        '_DRIFT = np.array([0.12, 0.12, 0.12])',
    ),
    _off(
        _RATE,
        'a wild model of the link',
        '_SPREAD = np.array([0.05, 0.18, 0.45])',
        '_SPREAD = np.array([0.05, 0.18, 0.18])',
        '_DRIFT = np.array([0.02, 0.12, 0.70])',
        '_DRIFT = np.array([0.02, 0.12, 0.12])',
    ),
    _off(
        _RATE,
        'a steady model of the link',
        '_SPREAD = np.array([0.05, 0.18, 0.45])',
        '_SPREAD = np.array([0.18, 0.18, 0.45])',
        '_DRIFT = np.array([0.02, 0.12, 0.70])',
        '_DRIFT = np.array([0.12, 0.12, 0.70])',
    ),
    _off(
        _RATE,
        'other rates of jumps in each model',
        '_JUMPS_PER_S = np.array([0.02, 0.03, 0.10])',
        '_JUMPS_PER_S = np.array([0.03, 0.03, 0.03])',
    ),
    _off(_RATE, 'jumps of the rate', '_JUMPS_PER_S = np.array([0.02, 0.03, 0.10])', '_JUMPS_PER_S = np.full(3, 1e-6)'),
    _off(_RATE, 'changes between models', '_MODEL_CHANGES_PER_S = 0.05', '_MODEL_CHANGES_PER_S = 0.0'),
    _off(_RATE, 'transfers that something else delays', '_DELAYED_SHARE = 0.01', '_DELAYED_SHARE = 1e-9'),
    _off(_RATE, 'delays of transfers that have not ended', '+ _DELAYED_SHARE * delayed', '+ _DELAYED_SHARE'),
    _off(
        _RATE,
        'spread of single transfers in the next one',
        'np.exp(self._next_log + (self._offset + wider * _NORMALS))',
        'np.exp(self._next_log + self._offset + 0.0 * wider)',
    ),
    _off(_TRIP, 'jitter from the outer tenths', '(rtts[-1 - outer] - rtts[outer]) / 3.1, ', ''),
    _off(_TRIP, 'jitter from the median deviation', 'max(usual_s, ', 'max('),
    _off(
        _TRIP, 'no outliers in the mean', 'near = [rtt for rtt in rtts if abs(rtt - middle) <= limit_s]', 'near = rtts'
    ),
    _off(
        _TRIP,
        'bytes of heartbeats',
        'rtts = sorted(total - (transmission_s if math.isnan(own) else own) for total, own in',
        'rtts = sorted(total + 0.0 * transmission_s for total, own in',
    ),
    _off(_SERVICE, 'a factor for each cut', 'row = 0 if cut is None else self._row(cut)', 'row = 0'),
    _off(
        _SERVICE,
        'outliers wait for confirmation',
        'if not self._outlier * innovation > 0:\n                self._outlier = innovation\n                return',
        'pass',
    ),
    _off(_SERVICE, 'a confirmed outlier widens the factor', 'self._covariance[0, 0] += innovation**2', 'pass'),
    _off(_SERVICE, 'short computations count less', ' + (_PAUSE_S / profiled_s) ** 2', ''),
    _off(_SERVICE, 'factors of cuts return to 1', 'kept = math.exp(-elapsed_s / _CUT_FORGETTING_S)', 'kept = 1.0'),
    _off(
        _SERVICE,
        'a slow machine is tried again',
        'if self._updated_s is not None and now_s > self._forgotten_s:',
        'if False:',
    ),
    _off(
        _SERVICE,
        'a long silence needs confirmation',
        'if elapsed_s < expected_s * math.exp(_UNLIKELY_SILENCE * self._spread):',
        'if True:',
    ),
    _off(
        _LOAD,
        'silence of the edge counts',
        'self.times.observe_unfinished(cut, waited_s - self.queueing_s, profiled_s, now_s)',
        'pass',
    ),
    _off(
        _LOAD,
        'reports of answered frames do not count',
        'if not 0 <= now_s - self._answered_s <= report.period_s:',
        'if True:',
    ),
    _off(_LOAD, 'slowdown from reports', 'if not 0 <= now_s - self._answered_s <= report.period_s:', 'if False:'),
    _off(_LOAD, 'a stale queueing delay is forgotten', 'if now_s - self._news_s > self.stale_after_s:', 'if False:'),
    _off(_AGE, 'stages vary', '_STAGE_SPREAD = 0.03', '_STAGE_SPREAD = 0.0'),
    _off(
        _LATENCY,
        'residuals',
        'return self.robot_s + self.expected_wait_s + self.residual_s',
        'return self.robot_s + self.expected_wait_s',
    ),
    _off(
        _LATENCY,
        'a bound on negative residuals',
        'estimate.residual_s[choices.split], -_LARGEST_REDUCTION * (robot_s + expected_wait_s)',
        'estimate.residual_s[choices.split], -np.inf',
    ),
    _off(
        _HYSTERESIS,
        'switching cost',
        'cost_s = self.constraints.switching_cost * float(score[current])',
        'cost_s = 0.0',
    ),
    _off(
        _HYSTERESIS,
        'deviation of the gain',
        'needed_s = cost_s + self.constraints.confidence *',
        'needed_s = cost_s + 0.0 *',
    ),
    _off(_HYSTERESIS, 'missed gains add up', ' and not self.regret.is_excessive(float(score[current]))', ''),
    _off(
        _HYSTERESIS,
        'no deviation of the rate after it has changed',
        'rate_spread = 0.0 if rate_changed else',
        'rate_spread =',
    ),
    _off(
        _HYSTERESIS,
        'a bound on the deviation of the rate',
        'min(estimate.rate_spread, _LINK_FLUCTUATION)',
        'estimate.rate_spread',
    ),
    _off(
        _HYSTERESIS,
        'a bound on the deviation of the machines',
        'min(estimate.robot_spread, MACHINE_FLUCTUATION)',
        'estimate.robot_spread',
        'min(estimate.edge_spread, MACHINE_FLUCTUATION)',
        'estimate.edge_spread',
    ),
    _off(
        _ALTERNATION,
        'robot and link alternate',
        "if not (allowed[local] and constraints.objective == 'latency' and",
        'if not (False and',
    ),
    _off(_ALTERNATION, 'the least gain of alternation', '_ALTERNATION_GAIN = 1.02', '_ALTERNATION_GAIN = 1.0'),
    _off(
        _ALTERNATION,
        'local inference instead of waiting',
        'if allowed[local] and is_predictable and behind',
        'if False and is_predictable and behind',
    ),
    _off(
        _ALTERNATION,
        'local inference instead of waiting, only if the wait is foreseen',
        'if allowed[local] and is_predictable and behind',
        'if allowed[local] and behind',
    ),
    _off(
        _ALTERNATION,
        'local inference instead of waiting, only if the robot is idle',
        'and behind and robot_idle and local_s',
        'and behind and local_s',
    ),
    _off(
        _TIMEOUT,
        'the answer timeout of least cost',
        'return max(shortest_s, min(',
        'return longest_s + 0.0 * max(shortest_s, min(',
    ),
    _off(_PLANNER, 'the rate only decides between equal stages', '_TIE_BREAK = 1e-3', '_TIE_BREAK = 0.0'),
    _off(
        _MONITOR,
        'no residuals during alternation or on an unsteady link',
        'if was_sent and (decided.local_if_wait_s < math.inf or self.used.link.rate_spread >= STEADY_SPREAD):',
        'if False:',
    ),
    _off(_ROBOT, 'residual shared by all sent frames', 'self.residual_s[:-1] += step_s', 'pass'),
    _off(_ROBOT, 'residuals fade', 'self.residual_s *= _RESIDUAL_DECAY', 'pass'),
    _off(
        _ROBOT,
        'a bound on one residual',
        'min(max(latency_s - predicted_s, -largest_s), largest_s)',
        '(latency_s - predicted_s)',
    ),
    _off(
        _ROBOT,
        'heads while the robot finishes a frame do not count',
        'if finishing_s <= _FINISHING_SHARE * head_s:',
        'if True:',
    ),
    _off(_KNOWN_EDGE, 'plans only when an estimate moved', 'if not (is_urgent or moved):', 'if False:'),
    _off(
        _CAMERA,
        'a head is interrupted by a better decision',
        'return newer.predicted_latency_s < remaining_s',
        'return False',
    ),
    _off(
        _CAMERA,
        'no head while the robot finishes a frame',
        'if self._waiting is None or self._head is not None or self._overdue:',
        'if self._waiting is None or self._head is not None:',
    ),
    _off(
        _CAMERA,
        'a payload that waits may still be sent',
        'if lost and self._overdue and not self._stopped:',
        'if False:',
    ),
    _off(
        _CAMERA,
        'the timeout follows a newer decision',
        'if latest is not None and latest.choice == frame.choice:',
        'if False:',
    ),
    _off(
        _PACING,
        'the head starts just in time',
        'return send_s - self._ready_s.get(choice, math.inf)',
        'return -math.inf',
    ),
    _off(
        _PACING,
        'the edge is free when the payload arrives',
        'send_s = max(send_s, done_s[0] - edge.transfer_s.get(choice, math.inf))',
        'pass',
    ),
    _off(_PACING, 'a mean of service times', '_SERVICE_WEIGHT = 0.3', '_SERVICE_WEIGHT = 1.0'),
    _off(
        _STALENESS,
        'waiting for newer images',
        'if age_s > _NEW_AGE * period_s and 0 < wait_s <= self._saved_s:',
        'if False:',
    ),
    _off(_STALENESS, 'young images count as new', 'if age_s > _NEW_AGE * period_s and 0 < wait_s', 'if 0 < wait_s'),
    _off(
        _STALENESS,
        'the newer image may be late',
        'return arrived_s + (1 + _LATENESS) * period_s',
        'return arrived_s + period_s',
    ),
    _off(_STALENESS, 'a cap on saved-up waiting', 'min(max(saved_s, 0.0), period_s)', 'max(saved_s, 0.0)'),
)

#: Constants without a physical meaning, by file; each is halved and doubled.
CONSTANTS = {
    _LINK: (
        '_FIRST_HEARTBEATS',
        '_DELAYED_MESSAGES',
        '_FIRST_RATE_S',
        '_DISPERSION_JITTER_S',
        '_EDGE_PAUSED',
        '_PAUSES',
    ),
    _PROBING: ('_JITTERS', '_HIGH_JITTER', '_LEADS_S', '_DISPERSION_S', '_GAP_RATIO', '_UNCERTAIN', '_BUDGET_S'),
    _RATE: ('_MODEL_CHANGES_PER_S', '_DELAYED_SHARE', '_SHIFT_SHARE', '_LONG_TRANSFER'),
    _SERVICE: (
        '_NOISE',
        '_CUT_SPREAD',
        '_DRIFT',
        '_CUT_FORGETTING_S',
        '_PAUSE_S',
        '_OUTLIER',
        '_UNLIKELY_SILENCE',
        '_FORGETTING_S',
    ),
    _LOAD: ('_SPREAD',),
    _LATENCY: ('_LARGEST_REDUCTION',),
    _AGE: ('_STAGE_SPREAD',),
    _ALTERNATION: ('STEADY_SPREAD',),
    _TIMEOUT: ('_PAUSE_S', '_FINISHING'),
    _PLANNER: ('_TIE_BREAK',),
    _HYSTERESIS: ('MACHINE_FLUCTUATION', '_LINK_FLUCTUATION', '_RATE_CHANGE', '_REGRET_LATENCIES'),
    _ROBOT: ('_RESIDUAL_WEIGHT', '_LARGEST_RESIDUAL'),
    _KNOWN_EDGE: ('_REPLAN_CHANGE',),
    _STALENESS: ('_NEW_AGE', '_LATENESS'),
}


def constants() -> list[Switch]:
    """Return each constant halved and doubled."""
    return [
        Switch(file, f'{name} {word}', (), f'{name} = {factor} * {name}\n')
        for file, names in CONSTANTS.items()
        for name in names
        for word, factor in (('halved', 0.5), ('doubled', 2.0))
    ]
