# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
A model split over two plain processes, without ROS: the codec's bytes go over a socket, and nothing is pickled.

Run ``python two_processes.py edge`` in one terminal; it prints a port. Run ``python two_processes.py robot PORT`` in
another: each image is split elsewhere, and each answer is compared with the whole model's, bit for bit.
"""

from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
import sys

import torch

from dynsplit_ros import decode, encode, EncodedTensor, load_model, SplitModel, TensorSpec


def send(link: Connection, codec: str, tensors: dict[str, torch.Tensor]) -> None:
    for tensor in encode(codec, tensors):
        link.send_bytes(tensor.data)


def receive(link: Connection, codec: str, specs: tuple[TensorSpec, ...]) -> dict[str, torch.Tensor]:
    # Names, types and shapes are those of the cut, which both sides know; no message may be much longer than its
    # tensor.
    return decode(codec, [EncodedTensor(spec.name, spec.dtype, spec.shape, link.recv_bytes(2 * spec.nbytes + 4096))
                          for spec in specs], specs)


def edge(split: SplitModel) -> None:
    with Listener(('localhost', 0)) as listener:
        print(listener.address[1], flush=True)
        with listener.accept() as link, suppress(EOFError):
            while True:
                cut = split.cuts[link.recv_bytes(1)[0]]
                send(link, 'raw', split.tail(cut)(receive(link, 'blosc2', cut.tensors)))


def robot(split: SplitModel, port: int) -> None:
    with Client(('localhost', port)) as link:
        for index, cut in enumerate(split.cuts[:split.local_index]):  # all but the last, which sends nothing
            image = torch.randint(0, 256, (1, 3, *split.model.input_size), dtype=torch.uint8)
            link.send_bytes(bytes([index]))
            send(link, 'blosc2', split.head(cut)(image))
            outputs, whole = receive(link, 'raw', split.output_specs or ()), split.whole(image)
            same = all(torch.equal(outputs[name], whole[name]) for name in whole)
            print(f'split {index} at {cut.name}: {"the same, bit for bit" if same else "NOT the same"}')


model = SplitModel(load_model('mobilenet_v2', weights='none', input_size=(96, 96)))
edge(model) if sys.argv[1] == 'edge' else robot(model, int(sys.argv[2]))
